/* Lets the threads of the simulated device rest.
 *
 * Each of them looks for work without a pause, holding a mutex that whoever brings work needs too. On few
 * processors that mutex is hardly ever free for another: a token takes half a second, or many. The simulator is
 * loaded as a library that this one needs, in a way that its calls are looked up here before they are in C's
 * library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

/* How the simulator's names of its threads begin: TPU_GDMA, TPU_BD and so on, and CORE_MAIN. */
static const char *const DEVICE[] = {"TPU_", "CORE_"};

/* Unlocks of a thread from one rest to the next; a look takes two. Fewer make single commands wait more often. */
enum { UNLOCKS_BEFORE_REST = 200 };

/* Short beside a command, long beside a look. */
static const struct timespec REST = {.tv_nsec = 100 * 1000};

/* What a thread's name takes, by prctl(2). */
enum { NAME_BYTES = 16 };

static int (*unlock)(pthread_mutex_t *);

__attribute__((constructor)) static void find_unlock(void) {
  unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
}

static int is_device(void) {
  char name[NAME_BYTES] = "";
  prctl(PR_GET_NAME, name);
  for (size_t kind = 0; kind < sizeof DEVICE / sizeof *DEVICE; kind++)
    if (strncmp(name, DEVICE[kind], strlen(DEVICE[kind])) == 0)
      return 1;
  return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
  static _Thread_local unsigned unlocks;
  int status = unlock(mutex);
  if (++unlocks % UNLOCKS_BEFORE_REST == 0 && is_device())
    nanosleep(&REST, NULL);
  return status;
}
