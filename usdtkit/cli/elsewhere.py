"""Names of commands and tools that usdtkit does not have → what does that job, here or elsewhere.

Input: a word where the name of a tool was expected, and the names that there are. Output: the error. People know the
tools of bcc and bpftrace by name, and most of those are about the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit.errors import UsageError, one_of

# What does the job of a tool or a part of it; {name} is the tool.
HERE = {
    "bpflist": "usdtkit doctor PROVIDER shows who traces its probes; bpftool prog lists all programs",
    "execsnoop": "bcc's {name} does; each tool with -c CMD traces a command and what it starts",
    "exitsnoop": "bcc's {name} does; usdtkit uthreads PID shows threads that start and end",
    "inject": "nothing here changes what a traced program does",
    "killsnoop": "usdtkit trace 'c:kill(int pid, int sig) \"%d %d\", pid, sig' shows calls of libc; bcc's {name} all",
    "klockstat": "usdtkit mutexstat is about the locks of programs; bcc's {name} about those of the kernel",
    "ltrace": "usdtkit libcalls counts calls of a library, and usdtkit trace shows them",
    "offcputime": "usdtkit mutexstat shows waits for locks, dbslower and gethostlatency other waits; bcc's {name} all",
    "offwaketime": "usdtkit mutexstat shows waits for locks; bcc's {name} all",
    "opensnoop": "usdtkit trace 'c:open \"%s\", path' 'c:openat \"%s\", path' shows calls of libc; bcc's {name} all",
    "profile": "usdtkit.trace.clock samples the CPU from Python; bcc's {name} and perf record do from the command line",
    "reset-trace": "there is nothing to reset: probes are gone when their tracer ends, however it ends",
    "setuids": "usdtkit trace 'c:setuid(int user) \"%d\", user' shows calls of libc; bpftrace's {name}.bt all",
    "sslsnoop": "usdtkit sslsniff shows what is sent and received, and usdtkit ssllatency how long it takes",
    "statsnoop": "usdtkit trace 'c:stat(const char *path) \"%s\", path' shows calls of libc; bcc's {name} all",
    "strace": "usdtkit libcalls counts calls of the C library; strace -c -p PID counts system calls",
    "syscount": "usdtkit libcalls counts calls of the C library; bcc's {name} and perf trace -s count system calls",
    "ttysnoop": "usdtkit bashreadline shows the lines that are typed into shells; bcc's {name} a whole terminal",
    "wakeuptime": "usdtkit mutexstat --hold shows who keeps others waiting; bcc's {name} does for all waits",
}
ABOUT_THE_KERNEL = (
    "bindsnoop biolatency biolatpcts biopattern biosnoop biostacks biotop bitesize btrfsdist btrfsslower cachestat "
    "cachetop capable compactsnoop cpudist cpuunclaimed cpuwalk criticalstat dcsnoop dcstat dirtop drsnoop ext4dist "
    "ext4slower filegone filelife fileslower filetop f2fsslower hardirqs kvmexit llcstat loads mdflush mountsnoop "
    "naptime netqtop nfsdist nfsslower numasched numamove oomkill pidpersec ppchcalls rdmaucma readahead runqlat "
    "runqlen runqslower shmsnoop slabratetop sofdsnoop softirqs solisten swapin syncsnoop tcpaccept tcpcong "
    "tcpconnect tcpconnlat tcpdrop tcplife tcppktlat tcpretrans tcprtt tcpstates tcpsubnet tcpsynbl tcptop "
    "tcptracer undump vfscount vfsstat virtiostat wqlat writeback xfsdist xfsslower zfsdist zfsslower"
)


def unknown(name: str, names: Sequence[str]) -> UsageError:
    """The error for a word that is none of the names of commands and tools."""
    import difflib  # only where something has failed

    # Debian calls bcc's tools so, and bpftrace's come with the names of their files.
    plain = name.removesuffix("-bpfcc").removesuffix(".bt").removesuffix(".py")
    if plain in names:
        return UsageError(f"no command or tool is called {name!r}", hint=f"usdtkit {plain} does the same")
    kernel = ABOUT_THE_KERNEL.split()
    near = difflib.get_close_matches(plain, [*names, *HERE, *kernel], 1, 0.75)
    if near and near[0] in HERE:
        return UsageError(f"usdtkit has no {near[0]}", hint=HERE[near[0]].format(name=near[0]))
    if near and near[0] in kernel:
        what = f"usdtkit has no {near[0]}, which is about the kernel"
        return UsageError(
            what, hint="the tools of bcc and bpftrace do that; usdtkit -h lists what there is for programs"
        )
    return UsageError(f"no command or tool is called {name!r}", hint=one_of(name, names, "usdtkit -h lists them"))
