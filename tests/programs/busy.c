/* Does for every line "go" one round of what tracers' manuals trace, and answers with a line "done": reads that fail, a
   string from gets, allocations, locks, threads, forks, sleeps, prints, probes, each of them a known number of times. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/sdt.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

char *gets(char *into); /* which today's headers hide */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *start_routine(void *argument)
{
    DTRACE_PROBE3(libpthread, pthread_start, 1, start_routine, argument);
    return argument;
}

NOINLINE int prime(int n)
{
    DTRACE_PROBE2(busy, prime, n, "two");
    return n * n;
}

NOINLINE static void read_and_write(void)
{
    char buffer[8];
    int fd = open("test.txt", O_RDWR | O_CREAT, 0600);
    for (int n = 0; n < 3; n++) {
        if (write(fd, "four", 4) != 4 || read(-1, buffer, 8) != -1)
            exit(1);
    }
    if (write(-1, buffer, 1) != -1 || read(fd, buffer, 8) != 0)
        exit(1);
    close(fd);
}

NOINLINE static void threads_and_locks(void)
{
    pthread_t thread;
    DTRACE_PROBE4(libpthread, pthread_create, &thread, NULL, start_routine, &lock);
    if (pthread_create(&thread, NULL, start_routine, NULL) || pthread_join(thread, NULL))
        exit(1);
    for (int n = 0; n < 7; n++) {
        DTRACE_PROBE1(libpthread, mutex_entry, &lock);
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
    }
}

NOINLINE static void round_of_calls(void)
{
    struct timespec little = {0, 1000};
    unsigned char address[4];
    read_and_write();
    threads_and_locks();
    for (int n = 1; n <= 5; n++) {
        char *volatile block = malloc(16 * n);
        free(block);
        prime(n);
    }
    nanosleep(&little, NULL);
    sleep(0);
    inet_pton(AF_INET, "10.0.0.1", address);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    puts("Press ENTER to start.");
    char text[32];
    snprintf(text, sizeof text, "%d", child);
}

int main(void)
{
    char line[64];
    printf("ready\n");
    fflush(stdout);
    while (gets(line)) {
        if (line[0] != 'g')
            continue;
        round_of_calls();
        printf("done\n");
        fflush(stdout);
    }
    return 0;
}
