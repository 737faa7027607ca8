#pragma once
#include <stdint.h>

/*
 * What the kernel says of its own types (BTF, /sys/kernel/btf/vmlinux), for programs that read its structures.
 *
 * In: the bytes of that file, and names. Out: offsets, and numbers of types. The bytes may be anything.
 */

/* For each name writes a number: of "STRUCT.MEMBER" the offset of the member in bytes, also where it is in a nameless
 * struct or union; of "func:NAME" and "typedef:NAME" the number of that type. -1 stands for what is not there. Returns
 * 0, or a negative errno where these bytes are no BTF. */
int usdtkit_btf_find(const void *btf, uint64_t size, const char *const *names, uint32_t count, int32_t *out);
