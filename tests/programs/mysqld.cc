/* A server that no package has: the functions of MySQL 5.7 and 8 or, with -DMARIADB, those of MariaDB before it had
   accessors of the THD, by their signatures: mysqld [TIMES]
   One connection sends, TIMES times: a query, a statement to prepare, its execution, an execution that the log does not see,
   a ping, a fetch; and a thread of replication applies a statement. Each takes 100 microseconds or more. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include "program.h"

#define KEPT __attribute__((noinline, noclone, used))

enum enum_server_command { COM_QUERY = 3, COM_PING = 14, COM_STMT_PREPARE = 22, COM_STMT_EXECUTE, COM_STMT_FETCH = 28 };
class THD {};

static const char *const prepared = "select price from stock where item = ?";
static bool is_logged;
static volatile long sent;

#ifdef MARIADB
typedef unsigned int uint;
KEPT void general_log_write(THD *, enum_server_command, const char *, size_t) { sent = sent + 1; }
static void log_statement(THD *thd, enum_server_command command, const char *query)
{
    general_log_write(thd, command, query, strlen(query));
}
KEPT bool dispatch_command(enum_server_command command, THD *thd, char *packet, uint length)
#else
struct Query_logger {
    KEPT void general_log_write(THD *, enum_server_command, const char *, size_t) { sent = sent + 1; }
} query_logger;
struct COM_QUERY_DATA { const char *query; unsigned int length; };
struct COM_STMT_EXECUTE_DATA { unsigned long stmt_id, open_cursor; };
union COM_DATA { COM_QUERY_DATA com_query; COM_STMT_EXECUTE_DATA com_stmt_execute; };
static void log_statement(THD *thd, enum_server_command command, const char *query)
{
    query_logger.general_log_write(thd, command, query, strlen(query));
}
KEPT bool dispatch_command(THD *thd, const COM_DATA *packet, enum_server_command command)
#endif
{
    __asm__ volatile("" : : "r"(packet) : "memory"); /* the compiler may not know that nobody reads it */
    if (command == COM_QUERY)
        log_statement(thd, command, "what the log has of a query");
    usleep(100);
    if (command == COM_STMT_EXECUTE && is_logged)
        log_statement(thd, command, prepared);
    sent = sent + 1;
    return false;
}

#ifdef MARIADB
class rpl_group_info {};
struct Query_log_event { KEPT int do_apply_event(rpl_group_info *, const char *, uint) { usleep(100); return sent; } };
#else
class Relay_log_info {};
struct Query_log_event { KEPT int do_apply_event(const Relay_log_info *, const char *, size_t) { usleep(100); return sent; } };
#endif

static void send(THD *thd, enum_server_command command, const char *text)
{
#ifdef MARIADB
    char packet[64] = "\1\0\0\0\0";
    if (text)
        strcpy(packet, text);
    dispatch_command(command, thd, packet, text ? strlen(text) : 10);
#else
    COM_DATA data = {};
    if (text)
        data.com_query = {text, (unsigned int)strlen(text)};
    else
        data.com_stmt_execute.stmt_id = 1;
    dispatch_command(thd, &data, command);
#endif
}

int main(int argc, char **argv)
{
    long times = number(argc, argv, 1, 97);
    THD thd;
    Query_log_event event;
    await_go();
    for (long i = 0; i < times; i++) {
        send(&thd, COM_QUERY, "select 'at once'");
        send(&thd, COM_STMT_PREPARE, prepared);
        is_logged = true;
        send(&thd, COM_STMT_EXECUTE, NULL);
        is_logged = false;
        send(&thd, COM_STMT_EXECUTE, NULL);
        send(&thd, COM_PING, NULL);
        send(&thd, COM_STMT_FETCH, NULL);
        event.do_apply_event(NULL, "delete from stock", 17);
    }
    printf("served %ld\n", times);
    return 0;
}
