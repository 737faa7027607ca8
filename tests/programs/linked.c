/*
 * Calls functions of the C library so many times, whatever it was linked with: 997 blocks of 31 bytes, of which 97 are
 * kept; 7 look-ups; 3 threads. With an argument it says nothing. Built statically, with musl, or with an allocator of
 * its own (-DOWN_ALLOCATOR).
 */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef OWN_ALLOCATOR
static char pool[1 << 24];
static size_t used;

__attribute__((noipa)) void *malloc(size_t size) {
  char *block = pool + used + 16;
  memcpy(block - 16, &size, sizeof(size));
  used += (size + 31) & ~15UL;
  return block;
}

__attribute__((noipa)) void free(void *block) { (void)block; }

__attribute__((noipa)) void *calloc(size_t number, size_t size) { return memset(malloc(number * size), 0, number * size); }

__attribute__((noipa)) void *realloc(void *old, size_t size) {
  size_t before = 0;
  if (old) memcpy(&before, (char *)old - 16, sizeof(before));
  return memcpy(malloc(size), old ? old : "", before < size ? before : size);
}
#endif

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *run(void *unused) {
  pthread_mutex_lock(&mutex);
  usleep(1000);
  pthread_mutex_unlock(&mutex);
  return unused;
}

static __attribute__((noipa)) void *keep(void) { return malloc(31); }

static void say(const char *word) {
  puts(word);
  fflush(stdout);
}

int main(int argc, char **argv) {
  char line[3];
  int quiet = argc > 1;
  if (!quiet) say("ready");
  if (read(0, line, sizeof(line)) < 0) return 1;
  for (int n = 0; n < 997; n++) {
    void *block = keep();
    if (n >= 97) free(block);
  }
  for (int n = 0; n < 7; n++) {
    struct addrinfo *found, hints = { .ai_flags = AI_NUMERICHOST };
    if (getaddrinfo("127.0.0.1", NULL, &hints, &found) == 0) freeaddrinfo(found);
  }
  pthread_t threads[3];
  for (int n = 0; n < 3; n++) pthread_create(&threads[n], NULL, run, NULL);
  for (int n = 0; n < 3; n++) pthread_join(threads[n], NULL);
  if (!quiet) say("done");
  return read(0, line, sizeof(line)) < 0;
}
