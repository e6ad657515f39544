/* SPDX-License-Identifier: MIT */
#include "client/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

/* What the handler reads. A slot is taken and given back under the mutex; `base` is written last
 * when it is taken and first when it is given back. */
struct slot {
    _Atomic uintptr_t base; /* 0: free */
    uintptr_t end;
    pid_t pid; /* a forked child has the table, but not the maps */
    int protection;
    _Atomic uint32_t *mark_here;
    _Atomic uint32_t *mark_everybody;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct slot slots[LKI_GUARD_RANGES_MAX];
static unsigned slots_used; /* under the mutex */
static bool installed;      /* under the mutex: our handler is in place, or below somebody else's */
static struct sigaction previous;

/* --- In the handler: async-signal-safe only --- */

static const struct slot *find(uintptr_t address)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(slots); i++) {
        /* [guard-slot] acquire, pairs with the release in lki_guard_add(): the rest of the slot is
         * there. It cannot go away meanwhile: whoever unmaps a window that another thread of his
         * still touches has a fault coming anyway. */
        uintptr_t base = atomic_load_explicit(&slots[i].base, memory_order_acquire);
        if (base != 0 && address >= base && address < slots[i].end)
            return slots[i].pid == getpid() ? &slots[i] : NULL;
    }
    return NULL;
}

/* Zeros where the file has ended, so that the access can be repeated. */
static bool cover(const struct slot *slot, uintptr_t address)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *page = (void *)(address - address % page_bytes);
    if (mmap(page, page_bytes, slot->protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        return false;
    /* relaxed: flags that only ever rise; nothing is read on the strength of them */
    atomic_store_explicit(slot->mark_here, 1, memory_order_relaxed);
    if (slot->mark_everybody)
        atomic_store_explicit(slot->mark_everybody, 1, memory_order_relaxed);
    return true;
}

static void chain(int signal_number, siginfo_t *info, void *context)
{
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal_number, info, context);
    } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
        /* Back to the default and return: the access faults again and ends the process with the
         * right signal and core. Ignoring a fault is not possible, the kernel would end it too. */
        struct sigaction standard = {.sa_handler = SIG_DFL};
        (void)sigemptyset(&standard.sa_mask);
        (void)sigaction(SIGBUS, &standard, NULL);
        if (info->si_code <= 0) /* sent by kill(2): nothing will fault again */
            (void)raise(signal_number);
    } else {
        previous.sa_handler(signal_number);
    }
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    int saved = errno;
    const struct slot *slot = info->si_code == BUS_ADRERR ? find((uintptr_t)info->si_addr) : NULL;
    if (!slot || !cover(slot, (uintptr_t)info->si_addr))
        chain(signal_number, info, context);
    errno = saved;
}

/* --- The table --- */

static int install(void)
{
    if (installed)
        return 0;
    struct sigaction own = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigemptyset(&own.sa_mask);
    /* Into `previous` first: our handler may run at once. */
    if (sigaction(SIGBUS, NULL, &previous) < 0 || sigaction(SIGBUS, &own, NULL) < 0)
        return -errno;
    installed = true;
    return 0;
}

/* Takes the handler away, unless somebody has put his over it: he may chain to us, so it stays, and
 * installing it once more would chain in a circle. */
static void uninstall(void)
{
    struct sigaction current;
    if (sigaction(SIGBUS, NULL, &current) == 0 && (current.sa_flags & SA_SIGINFO) &&
        current.sa_sigaction == on_bus_error && sigaction(SIGBUS, &previous, NULL) == 0)
        installed = false;
}

/* A free slot, or one that a parent's map had before fork(). */
static struct slot *free_slot(void)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(slots); i++)
        if (atomic_load_explicit(&slots[i].base, memory_order_relaxed) == 0 ||
            slots[i].pid != getpid())
            return &slots[i];
    return NULL;
}

int lki_guard_add(const struct lki_guard_range *range)
{
    (void)pthread_mutex_lock(&mutex);
    struct slot *slot = free_slot();
    int r = slot ? install() : -ENOSPC;
    if (r == 0) {
        atomic_store_explicit(&slot->base, 0, memory_order_relaxed);
        slot->end = (uintptr_t)range->base + range->bytes;
        slot->pid = getpid();
        slot->protection = range->writable ? PROT_READ | PROT_WRITE : PROT_READ;
        slot->mark_here = range->mark_here;
        slot->mark_everybody = range->mark_everybody;
        /* [guard-slot] release, pairs with the acquire in find() */
        atomic_store_explicit(&slot->base, (uintptr_t)range->base, memory_order_release);
        slots_used++;
    }
    (void)pthread_mutex_unlock(&mutex);
    return r;
}

void lki_guard_remove(const void *base)
{
    (void)pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(slots); i++) {
        if (atomic_load_explicit(&slots[i].base, memory_order_relaxed) == (uintptr_t)base &&
            slots[i].pid == getpid()) {
            atomic_store_explicit(&slots[i].base, 0, memory_order_relaxed);
            if (--slots_used == 0)
                uninstall();
            break;
        }
    }
    (void)pthread_mutex_unlock(&mutex);
}
