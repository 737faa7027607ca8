#pragma once
#include <stdint.h>

/*
 * The records in the memory of a BPF ring buffer, as its mapping shows them: a header of 8 bytes, of which the first 4
 * are the payload's length and two flags, then the payload, rounded up to 8. The data is mapped twice in a row, so that
 * no record is in two pieces.
 */
enum { USDTKIT_RECORD_HEADER = 8, USDTKIT_RECORD_AHEAD = 1024 };
static const uint32_t USDTKIT_RECORD_BUSY = 1U << 31, USDTKIT_RECORD_DISCARDED = 1U << 30;

struct usdtkit_record {
  const uint8_t *payload;
  uint32_t length;
};

/*
 * The next record of `data` from `*at`, which moves behind it and behind discarded ones. 0 where there is none: at the
 * end, or before one that is reserved and not yet submitted, as what follows must wait to stay in order. -1 where the
 * data ends in the midst of one.
 */
static inline int usdtkit_next_record(const uint8_t *data, uint64_t end, uint64_t *at, struct usdtkit_record *record) {
  while (*at < end) {
    if (end - *at < USDTKIT_RECORD_HEADER) return -1;
    uint32_t header = __atomic_load_n((const uint32_t *)(const void *)(data + *at), __ATOMIC_ACQUIRE);
    if (header & USDTKIT_RECORD_BUSY) return 0;
    uint32_t length = header & ~USDTKIT_RECORD_DISCARDED;
    uint64_t step = ((uint64_t)length + USDTKIT_RECORD_HEADER + 7) & ~7ULL;
    if (step > end - *at) return -1;
    record->payload = data + *at + USDTKIT_RECORD_HEADER;
    record->length = length;
    *at += step;
    /* Where the next record begins stands in this one, so the processor would wait for the memory of each. */
    __builtin_prefetch(data + *at + USDTKIT_RECORD_AHEAD);
    if (!(header & USDTKIT_RECORD_DISCARDED)) return 1;
  }
  return 0;
}
