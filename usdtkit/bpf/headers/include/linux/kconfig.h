/*
 * The header tree that the compiler is pointed at instead of a kernel's.
 *
 * A program on a uprobe reads the registers at the probe and the memory of the process, no structure of the kernel,
 * so the little that bcc's own preamble needs stands here and the same program runs on every kernel of its
 * architecture. The names and paths are those that bcc includes.
 */
#ifndef USDTKIT_KCONFIG_H
#define USDTKIT_KCONFIG_H

#define CONFIG_64BIT 1
#define CONFIG_BPF_SYSCALL 1

#endif
