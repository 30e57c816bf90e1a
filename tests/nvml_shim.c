/* A libnvidia-ml.so.1 with what the nvml driver calls. The environment, read at each call, says what it answers:
 *
 * SHIM_GPUS      how many GPUs there are; without it, the kernel module is not loaded
 * SHIM_SUPPORTS  what each supports: fields as id.scope, and usage, energy, temperature, utilization, clocks, events,
 *                throttle
 * SHIM_VALUES    what=number, for what is listed there: it answers with that
 * SHIM_FAIL      function=code or function.gpu=code, or a field for the function: it fails with that error
 * SHIM_NAME, SHIM_CAPABILITY, SHIM_MIG, SHIM_PROCESSES
 *
 * With SHIM_LOAD its GPUs live in real time, on made-up power: SHIM_IDLE watts, and SHIM_SWING more for each core that a
 * process uses, the one among its parent's children whose command line has SHIM_LOAD in it.
 *
 * SHIM_SENSORS   field=period/window/delay/step, in ms and mW or mJ: every period it shows the mean over a window that
 *                ended a delay ago, or, of energy, the sum up to then; other fields answer as above
 * SHIM_CAP       above so many watts, the clocks are lowered for it
 * SHIM_COST      so many microseconds does nvmlDeviceGetFieldValues take
 */

#define _GNU_SOURCE
#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };
enum { TOTAL_ENERGY = 83, POWER_AVERAGE = 185 };
enum { GPU_IDLE = 1, SW_POWER_CAP = 4 };

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    int type, result;
    union {
        unsigned narrow;
        unsigned long long wide;
    } value;
} FieldValue;

typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned instances[2];
} Process;

typedef struct {
    unsigned gpu, memory;
} Utilization;

static int boards[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static long long setting(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text ? atoll(text) : otherwise;
}

static const char *listed(const char *list, const char *word) {
    const char *text = getenv(list);
    return text ? strstr(text, word) : NULL;
}

/* The number after `word=` in a list. */
static long long assigned(const char *list, const char *word, long long otherwise) {
    char key[80];
    snprintf(key, sizeof key, "%s=", word);
    const char *found = listed(list, key);
    return found ? atoll(found + strlen(key)) : otherwise;
}

static int failure(const char *function, int gpu) {
    char name[80];
    snprintf(name, sizeof name, "%s.%d", function, gpu);
    return assigned("SHIM_FAIL", name, assigned("SHIM_FAIL", function, SUCCESS));
}

/* What a function of a GPU that gives one number returns. */
static int number(const char *function, const int *gpu, const char *what, long long value, void *into, size_t size) {
    int failed = failure(function, *gpu);
    value = assigned("SHIM_VALUES", what, value);
    memcpy(into, &value, size);
    return failed ? failed : listed("SHIM_SUPPORTS", what) ? SUCCESS : NOT_SUPPORTED;
}

static int text(const char *function, int gpu, const char *value, char *into, unsigned size) {
    snprintf(into, size, "%s", value);
    return failure(function, gpu);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) ? 0 : t.tv_sec + 1e-9 * t.tv_nsec;
}

static void pause_for(long nanoseconds) {
    nanosleep(&(struct timespec){0, nanoseconds}, NULL);
}

/* Energy against time, a point each millisecond or so; the last ones are kept. */
enum { POINTS = 1 << 13, MILLISECOND = 1000000 };
static struct {
    double t, used, joules;
} points[POINTS];
static long last;
static int users, living;
static clockid_t load;
static double idle, swing;
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void point(void) {
    pthread_mutex_lock(&lock);
    double t = seconds(CLOCK_MONOTONIC), used = fmax(seconds(load), points[last % POINTS].used);
    double joules = points[last % POINTS].joules;
    joules += idle * (t - points[last % POINTS].t) + swing * (used - points[last % POINTS].used);
    last++;
    points[last % POINTS].t = t, points[last % POINTS].used = used, points[last % POINTS].joules = joules;
    pthread_mutex_unlock(&lock);
}

static double joules_until(double t) {
    pthread_mutex_lock(&lock);
    long k = last;
    while (k > 1 && last - k < POINTS - 2 && points[(k - 1) % POINTS].t > t)
        k--;
    double span = points[k % POINTS].t - points[(k - 1) % POINTS].t;
    double slope = k > 1 ? (points[k % POINTS].joules - points[(k - 1) % POINTS].joules) / span : idle;
    double joules = points[k % POINTS].joules + slope * (t - points[k % POINTS].t);
    pthread_mutex_unlock(&lock);
    return joules;
}

static void *live(void *nothing) {
    for (; living; pause_for(MILLISECOND))
        point();
    return nothing;
}

/* The first child of this process's parent with SHIM_LOAD in its command line; 0 where there is none. */
static pid_t sibling(const char *name) {
    char path[80], line[4096];
    pid_t pid = 0, found = 0;
    glob_t lists;
    snprintf(path, sizeof path, "/proc/%d/task/*/children", getppid());
    glob(path, 0, NULL, &lists);
    for (size_t i = 0; i < lists.gl_pathc; i++) {
        FILE *children = fopen(lists.gl_pathv[i], "r");
        while (children && fscanf(children, "%d", &pid) == 1) {
            snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
            FILE *command = fopen(path, "r");
            size_t length = command ? fread(line, 1, sizeof line, command) : 0;
            found = memmem(line, length, name, strlen(name)) ? pid : found;
            if (command)
                fclose(command);
        }
        if (children)
            fclose(children);
    }
    globfree(&lists);
    return found;
}

static void start(void) {
    const char *name = getenv("SHIM_LOAD");
    pid_t pid = name ? sibling(name) : 0;
    if (users++ || !pid || clock_getcpuclockid(pid, &load))
        return;
    idle = setting("SHIM_IDLE", 70), swing = setting("SHIM_SWING", 200);
    points[0].t = seconds(CLOCK_MONOTONIC), points[0].used = seconds(load), points[0].joules = 1000, last = 0;
    point();
    living = !pthread_create(&thread, NULL, live, NULL);
}

static void stop(void) {
    if (--users || !living)
        return;
    living = 0;
    pthread_join(thread, NULL);
}

static double watts(double window, double until) {
    return (joules_until(until) - joules_until(until - window)) / window;
}

/* What a field shows now; `otherwise` where nothing lives, or it has no sensor of its own. */
static long long seen(const char *what, int energy, long long otherwise) {
    char key[24];
    double period, window, delay, step;
    snprintf(key, sizeof key, "%s=", what);
    const char *told = listed("SHIM_SENSORS", key);
    if (!living || !told || sscanf(told + strlen(key), "%lf/%lf/%lf/%lf", &period, &window, &delay, &step) != 4)
        return otherwise;
    point();
    double until = (floor(1e3 * seconds(CLOCK_MONOTONIC) / period) * period - delay) / 1e3;
    return llround(1e3 * (energy ? joules_until(until) : watts(window / 1e3, until)) / step) * step;
}

static int pair(int now, int *first, int *second) {
    *first = *second = now;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int failed = failure(__func__, 0);
    if (failed || !getenv("SHIM_GPUS"))
        return failed ? failed : DRIVER_NOT_LOADED;
    start();
    return SUCCESS;
}

int nvmlShutdown(void) {
    stop();
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *into, unsigned size) { return text(__func__, 0, "580.95.05", into, size); }
int nvmlSystemGetNVMLVersion(char *into, unsigned size) { return text(__func__, 0, "13.580.95.05", into, size); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = setting("SHIM_GPUS", 0);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **gpu) {
    *gpu = &boards[index];
    return failure(__func__, index);
}

int nvmlDeviceGetName(int *gpu, char *into, unsigned size) {
    const char *name = getenv("SHIM_NAME");
    return text(__func__, *gpu, name ? name : "NVIDIA H200", into, size);
}

int nvmlDeviceGetUUID(int *gpu, char *into, unsigned size) {
    snprintf(into, size, "GPU-%d", *gpu);
    return failure(__func__, *gpu);
}

int nvmlDeviceGetVbiosVersion(int *gpu, char *into, unsigned size) {
    return text(__func__, *gpu, "96.00.5E.00.01", into, size);
}

int nvmlDeviceGetCudaComputeCapability(int *gpu, int *major, int *minor) {
    int capability = setting("SHIM_CAPABILITY", 90);
    *major = capability / 10;
    *minor = capability % 10;
    return failure(__func__, *gpu);
}

int nvmlDeviceGetEccMode(int *gpu, int *now, int *pending) {
    (void)gpu;
    return pair(1, now, pending);
}

int nvmlDeviceGetMigMode(int *gpu, int *now, int *pending) {
    (void)gpu;
    return pair(setting("SHIM_MIG", 0), now, pending);
}

int nvmlDeviceGetPersistenceMode(int *gpu, int *mode) {
    *mode = 1;
    return failure(__func__, *gpu);
}

int nvmlDeviceGetPowerManagementLimit(int *gpu, unsigned *milliwatts) {
    *milliwatts = 700000;
    return failure(__func__, *gpu);
}

int nvmlDeviceGetEnforcedPowerLimit(int *gpu, unsigned *milliwatts) {
    *milliwatts = 650000;
    return failure(__func__, *gpu);
}

/* As documented: the first call, without room, says how many there are. */
int nvmlDeviceGetComputeRunningProcesses_v3(int *gpu, unsigned *count, Process *processes) {
    unsigned there = setting("SHIM_PROCESSES", 0), room = *count;
    *count = there;
    if (room < there)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++)
        processes[i] = (Process){4242 + i, 1ULL << 30, {-1, -1}};
    return failure(__func__, *gpu);
}

static int answer(const int *gpu, FieldValue *field) {
    char what[24];
    snprintf(what, sizeof what, "%u.%u", field->field, field->scope);
    int energy = field->field == TOTAL_ENERGY;
    long long of_scope[] = {700, 900, 100};
    long long value = energy ? 5000000000000LL : 1000 * of_scope[field->scope % 3] - (field->field == POWER_AVERAGE ? 50000 : 0);
    value = seen(what, energy, value);
    field->type = energy ? UNSIGNED_LONG_LONG : UNSIGNED_INT;
    return field->result = number(what, gpu, what, value + *gpu, &field->value, energy ? 8 : 4);
}

/* As documented: success where any field has a value. */
int nvmlDeviceGetFieldValues(int *gpu, int count, FieldValue *fields) {
    int failed = failure(__func__, *gpu), result = NOT_SUPPORTED;
    pause_for(1000 * setting("SHIM_COST", 0));
    for (int i = 0; i < count; i++)
        if (answer(gpu, &fields[i]) == SUCCESS)
            result = SUCCESS;
    return failed ? failed : result;
}

int nvmlDeviceGetTotalEnergyConsumption(int *gpu, unsigned long long *millijoules) {
    return number(__func__, gpu, "energy", 5000000000000LL + *gpu, millijoules, sizeof *millijoules);
}

int nvmlDeviceGetPowerUsage(int *gpu, unsigned *milliwatts) {
    return number(__func__, gpu, "usage", 640000 + *gpu, milliwatts, sizeof *milliwatts);
}

int nvmlDeviceGetTemperature(int *gpu, int sensor, unsigned *degrees) {
    (void)sensor;
    return number(__func__, gpu, "temperature", 60 + *gpu, degrees, sizeof *degrees);
}

int nvmlDeviceGetUtilizationRates(int *gpu, Utilization *rates) {
    *rates = (Utilization){0, 0};
    return number(__func__, gpu, "utilization", 0, &rates->gpu, sizeof rates->gpu);
}

int nvmlDeviceGetClockInfo(int *gpu, int clock, unsigned *megahertz) {
    return number(__func__, gpu, "clocks", clock == 1 ? 1980 : 3201, megahertz, sizeof *megahertz);
}

int nvmlDeviceGetCurrentClocksEventReasons(int *gpu, unsigned long long *mask) {
    int capped = living && watts(0.05, seconds(CLOCK_MONOTONIC)) > setting("SHIM_CAP", 1000);
    return number(__func__, gpu, "events", capped ? SW_POWER_CAP : GPU_IDLE, mask, sizeof *mask);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(int *gpu, unsigned long long *mask) {
    return number(__func__, gpu, "throttle", 1, mask, sizeof *mask);
}
