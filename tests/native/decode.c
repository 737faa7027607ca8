/* native/decode.c over bytes of standard input: decode MACHINE ROOM reads blocks of "LENGTH\n" and so many bytes, each
   of which is decoded in memory of exactly its size, so that a sanitiser sees what is read beside it. For each block it
   prints "END STOPPED FALLS_THROUGH", the marks of where instructions begin as digits, and a line for each flow:
   "AT LENGTH KIND CONDITION FLAGS TARGET". */
#include "decode.c"

#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  uint32_t size, room = (uint32_t)strtoul(argv[2], NULL, 10);
  while (scanf("%" SCNu32, &size) == 1) {
    getchar();
    uint8_t *code = malloc(size), *starts = malloc(size);
    usdtkit_flow *flows = malloc(room * sizeof *flows);
    usdtkit_sweep end;
    if (fread(code, 1, size, stdin) != size) return 3;
    (strcmp(argv[1], "aarch64") ? usdtkit_sweep_x86_64 : usdtkit_sweep_aarch64)(code, size, starts, flows, room, &end);
    printf("%d %" PRIu32 " %d\n", end.end, end.stopped, end.falls_through);
    for (uint32_t at = 0; at < size; at++) putchar('0' + starts[at]);
    putchar('\n');
    for (uint32_t n = 0; n < end.flows; n++)
      printf("%" PRIu32 " %d %d %d %d %" PRId64 "\n", flows[n].at, flows[n].length, flows[n].kind, flows[n].condition,
             flows[n].flags, flows[n].target);
    putchar('\n');
    free(code);
    free(starts);
    free(flows);
  }
  return 0;
}
