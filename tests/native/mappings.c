/* The sets of native/mappings.c, and native/btf.c, on standard input:
     set: lines "a INODE" (add), "r INODE" (take out) and "h INODE" (prints 1 or 0: whether it is there)
     btf NAME…: bytes of BTF; prints a number for each name, or the error */
#define _GNU_SOURCE
#include "btf.c"
#include "mappings.c"

#include <stdio.h>

static int sets(void) {
  struct set set = {0};
  char command;
  unsigned long inode;
  while (scanf(" %c %lu", &command, &inode) == 2) {
    /* Few places for many keys, so that searches are long. */
    struct usdtkit_file_key key = {.major = 8, .inode = inode, .generation = inode % 3};
    if (command == 'a' && add(&set, &key)) return 3;
    if (command == 'r') take_out(&set, &key);
    if (command == 'h') printf("%d\n", has(&set, &key) ? 1 : 0);
  }
  free(set.entries);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "set")) return sets();
  static uint8_t input[1 << 20];
  size_t size = fread(input, 1, sizeof input, stdin);
  uint8_t *data = malloc(size ? size : 1); /* whose end the sanitiser guards */
  memcpy(data, input, size);
  int32_t numbers[16];
  int result = usdtkit_btf_find(data, size, (const char *const *)argv + 2, (uint32_t)argc - 2, numbers);
  if (result) printf("%d\n", result);
  for (int n = 2; n < argc && !result; n++) printf("%d\n", numbers[n - 2]);
  free(data);
  return 0;
}
