#ifndef USDTKIT_UAPI_PTRACE_H
#define USDTKIT_UAPI_PTRACE_H

#include <linux/ptrace.h>

#endif
