/* What only MariaDB's own library sends: statements SOCKET bulk|cursor [TIMES]
   "bulk" executes an insert of 7 rows at once, "cursor" reads 97 rows, 10 at a time; each prepares its statement once. */
#include <mysql.h>
#include <string.h>
#include "program.h"

#define ROWS 7

static void check(int failed, const char *what, MYSQL *mysql, MYSQL_STMT *stmt)
{
    if (!failed)
        return;
    fprintf(stderr, "%s: %s %s\n", what, mysql_error(mysql), stmt ? mysql_stmt_error(stmt) : "");
    exit(1);
}

int main(int argc, char **argv)
{
    int is_bulk = argv[2][0] == 'b';
    long times = number(argc, argv, 3, 1), rows = 0;
    MYSQL *mysql = mysql_init(NULL);
    check(!mysql_real_connect(mysql, NULL, "root", NULL, NULL, 0, argv[1], 0), "connect", mysql, NULL);
    MYSQL_STMT *stmt = mysql_stmt_init(mysql);
    const char *text = is_bulk ? "insert into shop.stock values (?)" : "select seq from shop.seq_1_to_97";
    check(mysql_stmt_prepare(stmt, text, strlen(text)), "prepare", mysql, stmt);
    int values[ROWS] = {1, 2, 3, 4, 5, 6, 7}, read;
    MYSQL_BIND bind = {.buffer_type = MYSQL_TYPE_LONG, .buffer = is_bulk ? values : &read};
    if (is_bulk) {
        unsigned int size = ROWS;
        mysql_stmt_attr_set(stmt, STMT_ATTR_ARRAY_SIZE, &size);
        check(mysql_stmt_bind_param(stmt, &bind), "bind", mysql, stmt);
    } else {
        unsigned long type = CURSOR_TYPE_READ_ONLY, prefetched = 10;
        mysql_stmt_attr_set(stmt, STMT_ATTR_CURSOR_TYPE, &type);
        mysql_stmt_attr_set(stmt, STMT_ATTR_PREFETCH_ROWS, &prefetched);
        check(mysql_stmt_bind_result(stmt, &bind), "bind", mysql, stmt);
    }
    for (long i = 0; i < times; i++) {
        check(mysql_stmt_execute(stmt), "execute", mysql, stmt);
        if (is_bulk)
            rows += mysql_stmt_affected_rows(stmt);
        else
            for (; !mysql_stmt_fetch(stmt); rows++)
                ;
    }
    mysql_stmt_close(stmt);
    mysql_close(mysql);
    printf("rows %ld\n", rows);
    return 0;
}
