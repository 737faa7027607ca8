/* Calls every name look-up of the C library once, on names that /etc/hosts answers and one that nothing does.
   Prints a line a call: its name, the host asked for, and what it returned: for the older ones 0 or the h_errno. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>
#include "program.h"

static char buffer[16384];

static void tell(const char *call, const char *host, int result)
{
    printf("%s %s %d\n", call, host, result);
}

int main(void)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct hostent entry, *found;
    struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST}, *list;
    char host[256], service[32];
    int error, result;

    inet_pton(AF_INET, "127.0.0.1", &local.sin_addr);
    await_go();

    result = getaddrinfo("localhost", "80", NULL, &list);
    tell("getaddrinfo", "localhost", result);
    if (result == 0)
        freeaddrinfo(list);
    /* No resolver is asked about a name that must be numeric: EAI_NONAME on any machine. */
    tell("getaddrinfo", "no.such.host.invalid", getaddrinfo("no.such.host.invalid", NULL, &numeric, &list));
    tell("gethostbyname", "localhost", gethostbyname("localhost") ? 0 : h_errno);
    tell("gethostbyname2", "localhost", gethostbyname2("localhost", AF_INET) ? 0 : h_errno);
    tell("gethostbyname_r", "localhost",
         gethostbyname_r("localhost", &entry, buffer, sizeof buffer, &found, &error));
    tell("gethostbyname2_r", "localhost",
         gethostbyname2_r("localhost", AF_INET, &entry, buffer, sizeof buffer, &found, &error));
    tell("gethostbyaddr", "127.0.0.1", gethostbyaddr(&local.sin_addr, sizeof local.sin_addr, AF_INET) ? 0 : h_errno);
    tell("gethostbyaddr_r", "127.0.0.1",
         gethostbyaddr_r(&local.sin_addr, sizeof local.sin_addr, AF_INET, &entry, buffer, sizeof buffer, &found, &error));
    tell("getnameinfo", "127.0.0.1",
         getnameinfo((struct sockaddr *)&local, sizeof local, host, sizeof host, service, sizeof service, 0));
    return 0;
}
