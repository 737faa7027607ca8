#pragma once
#include <stdint.h>

/* 
 * The records in the memory of a BPF ring buffer. A record is a header of 8 bytes, of which the first 4 have the length
 * of the payload and two flags, and the payload, rounded up to 8 bytes. The data is mapped twice in a row, so a record
 * that begins at the end of the ring is in one piece too. Used by events.h for events, and by shim.c for
 * usdtkit.kernel.ring.
 */
enum { USDTKIT_RECORD_HEADER = 8, USDTKIT_RECORD_AHEAD = 1024 };
static const uint32_t USDTKIT_RECORD_BUSY = 1U << 31, USDTKIT_RECORD_DISCARDED = 1U << 30;

struct usdtkit_record {
  const uint8_t *payload;
  uint32_t length;
};

/* 
 * Finds the next record of `data` from `*at` on, and moves `*at` behind it and behind discarded ones. Returns 1; 0 if
 * there is none, at the end or before a record that is not submitted yet, because the order must be kept; -1 if the
 * data ends within a record.
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
    /* Only this record says where the next one begins, so the processor cannot read ahead by itself. */
    __builtin_prefetch(data + *at + USDTKIT_RECORD_AHEAD);
    if (!(header & USDTKIT_RECORD_DISCARDED)) return 1;
  }
  return 0;
}
