#ifndef USDTKIT_VERSION_H
#define USDTKIT_VERSION_H

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))

/* A uprobe's program may name any version; kernels since 5.0 do not look. */
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
#endif

#endif
