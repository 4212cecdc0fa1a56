#include "base/launch.h"

#include "base/error.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Vector instructions that an OpenBLAS kernel uses, by the name that OpenBLAS gives it. */
enum width { WIDTH_OLD, WIDTH_AVX, WIDTH_AVX2, WIDTH_AVX512, WIDTH_UNKNOWN };

static enum width kernel_width(const char *core)
{
    static const struct {
        const char *core;
        enum width width;
    } known[] = {
        {"Prescott", WIDTH_OLD},    {"Generic", WIDTH_OLD},       {"Core2", WIDTH_OLD},
        {"Penryn", WIDTH_OLD},      {"Dunnington", WIDTH_OLD},    {"Nehalem", WIDTH_OLD},
        {"Atom", WIDTH_OLD},        {"Katmai", WIDTH_OLD},        {"Coppermine", WIDTH_OLD},
        {"Northwood", WIDTH_OLD},   {"Banias", WIDTH_OLD},        {"Athlon", WIDTH_OLD},
        {"Opteron", WIDTH_OLD},     {"Opteron_SSE3", WIDTH_OLD},  {"Barcelona", WIDTH_OLD},
        {"Nano", WIDTH_OLD},        {"Bobcat", WIDTH_OLD},        {"Sandybridge", WIDTH_AVX},
        {"Bulldozer", WIDTH_AVX},   {"Piledriver", WIDTH_AVX},    {"Steamroller", WIDTH_AVX},
        {"Excavator", WIDTH_AVX2},  {"Haswell", WIDTH_AVX2},      {"Zen", WIDTH_AVX2},
        {"SkylakeX", WIDTH_AVX512}, {"Cooperlake", WIDTH_AVX512}, {"SapphireRapids", WIDTH_AVX512},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(core, known[i].core) == 0) return known[i].width;
    return WIDTH_UNKNOWN;
}

static enum width cpu_width(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return WIDTH_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return WIDTH_AVX2;
#endif
    return WIDTH_OLD;
}

/* The kernel to ask for, or NULL if the one in use is right (or is not OpenBLAS's). */
static const char *better_kernel(void)
{
    char *(*corename)(void);
    *(void **)&corename = dlsym(RTLD_DEFAULT, "openblas_get_corename");
    if (!corename) return NULL;
    const enum width used = kernel_width(corename()), possible = cpu_width();
    if (used >= possible) return NULL;
    return possible == WIDTH_AVX512 ? "SKYLAKEX" : "HASWELL";
}

static int environment_int(const char *name)
{
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

/* Cores that this rank may use: what it is bound to, but not more than its share of the node. */
static int cores_per_rank(void)
{
    cpu_set_t bound;
    int cores = sched_getaffinity(0, sizeof bound, &bound) == 0 ? CPU_COUNT(&bound) : 1;
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    static const char *const local_size[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS",
                                             "SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"};
    for (size_t i = 0; i < sizeof local_size / sizeof *local_size; i++) {
        const int ranks = environment_int(local_size[i]);
        if (ranks < 1) continue;
        const int share = (int)(online / ranks);
        if (share < cores) cores = share;
        break;
    }
    return cores < 1 ? 1 : cores;
}

static void set_number(const char *name, int value)
{
    char text[16];
    int at = sizeof text - 1;
    text[at] = '\0';
    do text[--at] = (char)('0' + value % 10);
    while (value /= 10);
    setenv(name, text + at, 1);
}

int launch_threads(void)
{
    int (*threads)(void);
    *(void **)&threads = dlsym(RTLD_DEFAULT, "openblas_get_num_threads");
    return threads ? threads() : 1;
}

void launch_set_threads(int threads)
{
    void (*set)(int);
    *(void **)&set = dlsym(RTLD_DEFAULT, "openblas_set_num_threads");
    if (set) set(threads);
}

static const char apart[] =
    "srun started %d tasks that do not know of each other, so that each would be a run of its own: use "
    "srun --mpi=pmix, or mpirun";

/* Open MPI dies with a long text in MPI_Init where srun gives it no PMIx server. One task needs none: it is a world of
 * its own, also in the shell of salloc, which is a job step on many clusters. */
static void check_srun(void)
{
    if (!getenv("SLURM_STEP_ID") || getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK")) return;
    const int tasks = environment_int("SLURM_STEP_NUM_TASKS");
    if (tasks > 1 && environment_int("SLURM_PROCID") == 0) error_end(EXIT_ENVIRONMENT, apart, tasks);
    if (tasks > 1) exit(EXIT_ENVIRONMENT);
    unsetenv("SLURM_STEP_ID");
}

void launch_check_world(int size)
{
    const int tasks = environment_int("SLURM_STEP_NUM_TASKS");
    if (size > 1 || tasks < 2 || getenv("OMPI_COMM_WORLD_SIZE")) return;
    if (environment_int("SLURM_PROCID") == 0) error_end(EXIT_ENVIRONMENT, apart, tasks);
    exit(EXIT_ENVIRONMENT);
}

void launch_prepare(char **argv)
{
    check_srun();
    static const char done[] = "EIGENTRAIN_LAUNCHED"; /* its value is our process id, so that children start afresh */
    setenv("OMPI_MCA_io", "romio321", 0);
    if (environment_int(done) == (int)getpid()) return;
    bool again = false;
    const char *kernel = getenv("OPENBLAS_CORETYPE") ? NULL : better_kernel();
    if (kernel) {
        setenv("OPENBLAS_CORETYPE", kernel, 1);
        again = true;
    }
    if (!getenv("OPENBLAS_NUM_THREADS") && !getenv("OMP_NUM_THREADS") && launch_threads() != cores_per_rank()) {
        set_number("OPENBLAS_NUM_THREADS", cores_per_rank());
        again = true;
    }
    if (!again) return;
    set_number(done, (int)getpid());
    execv("/proc/self/exe", argv);
    /* no /proc: go on with what there is; `info` and the provenance show which kernel it is */
}
