/* A process with executable memory of several kinds, as the first argument says. It writes "ready ADDRESS", that of the
   memory or of a function, and waits until its standard input ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, EXECUTABLE = PROT_READ | PROT_EXEC, OWN = MAP_PRIVATE | MAP_ANONYMOUS };

#ifdef FAR
/* The linker puts it into a second segment of code, at an address that it is told. */
__attribute__((section(".far"), noinline)) int elsewhere(int n) { return printf("%d\n", n) + 1; }
#else
int elsewhere(int n) { return n; }
#endif

/* Pages of code, the middle one of which is put into a mapping of its own. */
__attribute__((aligned(PAGE), noinline)) int long_function(int n) {
  char large[100];
  snprintf(large, sizeof large, "%d", n);
#define FOUR(x) x x x x
  FOUR(FOUR(FOUR(FOUR(n += large[n % 10] * 12345 ^ n >> 3; n -= large[n % 7]; large[n % 50] ^= (char)n;))))
  return n + large[3];
}

static void *mapped(void *at, size_t size, int protection, int flags, int file) {
  void *found = mmap(at, size, protection, flags, file, 0);
  if (found == MAP_FAILED) exit(1);
  return found;
}

int main(int count, char **words) {
  const char *kind = count > 1 ? words[1] : "";
  void *at = (void *)(uintptr_t)elsewhere;
  if (!strcmp(kind, "anonymous")) at = mapped(NULL, 64 * PAGE, EXECUTABLE, OWN, -1);
  if (!strcmp(kind, "file")) at = mapped(NULL, PAGE, EXECUTABLE, MAP_PRIVATE, open(words[2], O_RDONLY));
  if (!strcmp(kind, "split")) { /* code, data, code of one page each; the middle one is executable, too */
    at = (char *)(uintptr_t)long_function + PAGE;
    if (mprotect(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC)) return 1;
  }
  if (!strcmp(kind, "holes")) { /* the second page is not there any more */
    at = (char *)(uintptr_t)long_function + PAGE;
    if (munmap(at, PAGE)) return 1;
  }
  if (!strcmp(kind, "many")) { /* each is a mapping of its own, of two pages, but the last, of three */
    int number = atoi(words[2]);
    char *area = mapped(NULL, (size_t)number * 4 * PAGE, PROT_NONE, OWN, -1);
    for (int n = 0; n < number; n++)
      at = mapped(area + n * 4 * PAGE, (size_t)(n == number - 1 ? 3 : 2) * PAGE, EXECUTABLE, OWN | MAP_FIXED, -1);
  }
  printf("ready %p\n", at);
  fflush(stdout);
  char line[100];
  while (fgets(line, sizeof line, stdin)) { /* each line is the name of a library */
    line[strcspn(line, "\n")] = 0;
#ifndef STATIC
    at = dlopen(line, RTLD_NOW);
#endif
    printf("ready %p\n", at);
    fflush(stdout);
  }
  return elsewhere(long_function(1)) ? 0 : 0;
}
