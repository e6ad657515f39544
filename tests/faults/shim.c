/* SPDX-License-Identifier: MIT */
#include "tests/faults/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/faults/control.h"

/* NULL: nobody drives us. */
static struct faults_control *control;

/* --- By system call alone: the C library's functions are ours --- */

static int32_t own_pid(void)
{
    return (int32_t)syscall(SYS_getpid);
}

__attribute__((constructor)) static void find_control(void)
{
    const char *path = getenv(FAULTS_VARIABLE);
    int fd = path != NULL ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    void *base = (void *)syscall(SYS_mmap, NULL, sizeof(*control), PROT_READ | PROT_WRITE,
                                 MAP_SHARED, fd, 0);
    (void)syscall(SYS_close, fd);
    if (base == MAP_FAILED)
        return;
    struct faults_control *found = base;
    if (found->magic != FAULTS_MAGIC)
        return;
    /* seq_cst throughout this file: the driver watches, and nothing here is worth less. */
    int32_t nobody = 0;
    (void)atomic_compare_exchange_strong(&found->main_pid, &nobody, own_pid());
    control = found;
}

/* Whose call this is; FAULTS_ROLES: of no process that is watched. */
static enum faults_role own_role(int32_t pid)
{
    if (pid == atomic_load(&control->main_pid))
        return FAULTS_MAIN;
    return atomic_load(&control->children) ? FAULTS_CHILD : FAULTS_ROLES;
}

/* --- Call sites --- */

static void fill_site(struct faults_site *site, enum faults_call call, enum faults_role role,
                      const void *caller)
{
    Dl_info info;
    site->call = call;
    site->role = role;
    site->address = (uint64_t)(uintptr_t)caller;
    site->offset = site->address;
    if (dladdr(caller, &info) != 0 && info.dli_fname != NULL) {
        const char *slash = strrchr(info.dli_fname, '/');
        (void)strncpy(site->module, slash != NULL ? slash + 1 : info.dli_fname,
                      sizeof(site->module) - 1);
        site->offset = site->address - (uint64_t)(uintptr_t)info.dli_fbase;
        if (info.dli_sname != NULL)
            (void)strncpy(site->symbol, info.dli_sname, sizeof(site->symbol) - 1);
    }
    atomic_store(&site->ready, 2);
}

static bool is_site(const struct faults_site *site, enum faults_call call, enum faults_role role,
                    const void *caller)
{
    return site->call == call && site->role == role && site->address == (uint64_t)(uintptr_t)caller;
}

static uint32_t find_site(enum faults_call call, enum faults_role role, const void *caller)
{
    uint64_t hash = ((uint64_t)(uintptr_t)caller * 31 + call) * 31 + role;
    hash ^= hash >> 17;
    for (uint32_t probe = 0; probe < FAULTS_SITES_MAX; probe++) {
        uint32_t index = (uint32_t)((hash + probe) % FAULTS_SITES_MAX);
        struct faults_site *site = &control->sites[index];
        uint32_t empty = 0;
        if (atomic_compare_exchange_strong(&site->ready, &empty, 1)) {
            fill_site(site, call, role, caller);
            (void)atomic_fetch_add(&control->sites_used, 1);
            return index;
        }
        while (atomic_load(&site->ready) != 2)
            continue;
        if (is_site(site, call, role, caller))
            return index;
    }
    return FAULTS_ANY_SITE;
}

/* --- Mistakes on purpose --- */

static void plant(void)
{
    switch ((enum faults_planted)atomic_load(&control->planted)) {
    case FAULTS_PLANT_NONE:
    case FAULTS_PLANT_SPREAD:
        break;
    case FAULTS_PLANT_DESCRIPTOR:
        (void)syscall(SYS_fcntl, STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
        break;
    case FAULTS_PLANT_MEMORY:
        faults_count_blocks(1);
        break;
    case FAULTS_PLANT_CRASH:
        abort();
    case FAULTS_PLANT_HANG:
        for (;;)
            (void)syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
    }
}

/* --- The decision --- */

static bool is_planned(enum faults_call call, enum faults_role role, uint32_t site)
{
    const struct faults_plan *plan = &control->plan;
    if (atomic_load(&control->planted) == FAULTS_PLANT_SPREAD && atomic_load(&plan->fired) > 0 &&
        call == FAULTS_SEND)
        return true;
    uint32_t wanted = atomic_load(&plan->site);
    return atomic_load(&plan->call) == (uint32_t)call && atomic_load(&plan->role) == role &&
           (wanted == FAULTS_ANY_SITE || wanted == site);
}

static int decide(enum faults_call call, enum faults_role role, uint32_t site)
{
    struct faults_plan *plan = &control->plan;
    if (!is_planned(call, role, site))
        return 0;
    uint64_t number = atomic_fetch_add(&plan->matched, 1) + 1;
    uint64_t first = atomic_load(&plan->nth);
    bool spread = atomic_load(&control->planted) == FAULTS_PLANT_SPREAD;
    if (number < first || (!spread && number - first >= atomic_load(&plan->times)))
        return 0;
    (void)atomic_fetch_add(&plan->fired, 1);
    atomic_store(&plan->fired_site, site);
    plant();
    return (int)atomic_load(&plan->error);
}

int faults_ask(enum faults_call call, const void *caller, bool blocks)
{
    if (control == NULL)
        return 0;
    bool spreads = atomic_load(&control->planted) == FAULTS_PLANT_SPREAD;
    if (!atomic_load(&control->on) && !spreads)
        return 0;
    if (blocks && atomic_load(&control->plan.error) == EAGAIN && call != FAULTS_CLONE &&
        call != FAULTS_THREAD && call != FAULTS_MMAP && call != FAULTS_MADVISE &&
        call != FAULTS_TIMER)
        return 0;
    int saved = errno;
    enum faults_role role = own_role(own_pid());
    int error = 0;
    if (role != FAULTS_ROLES) {
        uint32_t site = find_site(call, role, caller);
        if (site != FAULTS_ANY_SITE)
            (void)atomic_fetch_add(&control->sites[site].count, 1);
        error = decide(call, role, site);
    }
    errno = saved;
    return error;
}

int faults_ask_fd(enum faults_call call, const void *caller, int fd)
{
    if (control == NULL || !atomic_load(&control->on))
        return 0;
    int saved = errno;
    struct stat status;
    int error = (int)atomic_load(&control->plan.error);
    bool is_file = syscall(SYS_newfstatat, fd, "", &status, 0x1000 /* AT_EMPTY_PATH */) == 0 &&
                   S_ISREG(status.st_mode);
    bool of_files = error == EIO || error == ENOSPC || error == EDQUOT || error == ENOMEM;
    long flags = syscall(SYS_fcntl, fd, F_GETFL, 0);
    errno = saved;
    if (of_files && !is_file)
        return 0;
    return faults_ask(call, caller, is_file || (flags & O_NONBLOCK) == 0);
}

/* --- The heap --- */

void faults_count_blocks(int change)
{
    if (control == NULL)
        return;
    int saved = errno;
    int32_t pid = own_pid();
    enum faults_role role = own_role(pid);
    if (role != FAULTS_ROLES) {
        struct faults_heap *heap = &control->heap[role];
        if (atomic_load(&heap->pid) != pid) { /* a clone begins with what its maker had */
            int64_t blocks =
                role == FAULTS_CHILD ? atomic_load(&control->heap[FAULTS_MAIN].blocks) : 0;
            atomic_store(&heap->blocks, blocks);
            atomic_store(&heap->pid, pid);
        }
        (void)atomic_fetch_add(&heap->blocks, change);
    }
    errno = saved;
}

/* Of this process: a clone has the count of its maker, who has no helpers. */
static int jobs;

void faults_count_jobs(int change)
{
    jobs += change;
}

void faults_note_idle(bool idle)
{
    if (control == NULL || own_role(own_pid()) != FAULTS_CHILD)
        return;
    if (idle)
        (void)atomic_fetch_add(&control->rests, 1);
    atomic_store(&control->idle, idle && jobs == 0);
}

void *faults_next(const char *name)
{
    int saved = errno;
    void *next = dlsym(RTLD_NEXT, name);
    if (next == NULL)
        _exit(127);
    errno = saved;
    return next;
}
