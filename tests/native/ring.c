/* The ring of native/shim.c and native/records.h, which this program writes as the kernel would: ring SIZE START
   SIZE bytes of data, mapped twice in a row; the positions begin at START. Commands on standard input, a line each:
     r LENGTH   reserve a record; prints "full" where there is no room
     c N, d N   submit, or discard, the record with that number (from 0)
     x ENOUGH   read until so many bytes of the ring; prints how many that were and "LENGTH/SUM" of each payload
   Payload byte i of record n is (7 n + i + 1) mod 256. */
#define _GNU_SOURCE
#include "records.h"
#include "shim.c"

#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv) {
  uint64_t size = argc > 2 ? strtoull(argv[1], NULL, 10) : 4096, start = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  int file = memfd_create("ring", 0);
  if (file < 0 || ftruncate(file, (off_t)(2 * page + size)) < 0) return 2;

  usdtkit_ring *ring = calloc(1, sizeof *ring);
  uint8_t *all = mmap(NULL, page + 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int shared = MAP_SHARED | MAP_FIXED, both = PROT_READ | PROT_WRITE;
  unsigned long *producer = mmap(all, page + size, both, shared, file, (off_t)page);
  uint8_t *data = (uint8_t *)producer + page;
  if (mmap(data + size, size, both, shared, file, (off_t)(2 * page)) == MAP_FAILED) return 2;
  ring->consumer = mmap(NULL, page, both, MAP_SHARED, file, 0);
  ring->producer = producer;
  ring->data = data;
  ring->size = size;
  ring->page = page;
  *ring->consumer = *producer = start;

  static uint64_t records[100000];
  uint64_t count = 0, value;
  char command;
  while (scanf(" %c %" SCNu64, &command, &value) == 2) {
    if (command == 'r') {
      uint64_t step = (value + USDTKIT_RECORD_HEADER + 7) / 8 * 8;
      if (*producer + step - *ring->consumer > size) {
        printf("full\n");
        continue;
      }
      uint8_t *record = data + (*producer & (size - 1));
      uint32_t header[2] = {USDTKIT_RECORD_BUSY | (uint32_t)value, 0xdeadbeef};
      memcpy(record, header, sizeof header);
      for (uint64_t i = 0; i < value; i++) record[USDTKIT_RECORD_HEADER + i] = (uint8_t)(7 * count + i + 1);
      records[count++] = *producer;
      *producer += step;
    } else if (command == 'x') {
      const void *waiting;
      uint64_t end = usdtkit_ring_waiting(ring, &waiting), at = 0;
      struct usdtkit_record found;
      char said[8192] = "";
      while (at < value && usdtkit_next_record(waiting, end, &at, &found) > 0) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < found.length; i++) sum += found.payload[i];
        sprintf(said + strlen(said), " %" PRIu32 "/%" PRIu32, found.length, sum);
      }
      usdtkit_ring_advance(ring, at);
      printf("%" PRIu64 "%s\n", at, said);
    } else if (value < count) {
      uint32_t *header = (uint32_t *)(void *)(data + (records[value] & (size - 1)));
      *header = (*header & ~USDTKIT_RECORD_BUSY) | (command == 'd' ? USDTKIT_RECORD_DISCARDED : 0);
    }
  }
  usdtkit_ring_close(ring);
  close(file);
  return 0;
}
