/* PID 1: starts the server named in its arguments, hands signals on, ends with its exit code.
 *
 * llama-server alone does not end when it is told to: before the model is loaded it has no handler
 * for SIGTERM, and the kernel drops a signal that PID 1 does not handle; while it streams, its
 * shutdown waits for a client that is in no hurry. So a stop that is not over after PATIENCE
 * seconds is ended with SIGKILL, and is called what it was: 143, ended by SIGTERM.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE = 3, CANNOT_START = 127, BY_SIGNAL = 128 };

static int exit_code(int status, int asked)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    return BY_SIGNAL + (WTERMSIG(status) == SIGKILL && asked ? asked : WTERMSIG(status));
}

/* How the server ended, if it has; other children are orphans that fell to PID 1. */
static int reap(pid_t server, int *status)
{
    int found;
    for (pid_t ended; (ended = waitpid(-1, &found, WNOHANG)) > 0;)
        if (ended == server) {
            *status = found;
            return 1;
        }
    return 0;
}

int main(int count, char **arguments)
{
    if (count < 2) {
        fputs("init: no program named\n", stderr);
        return CANNOT_START;
    }
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t server = fork();
    if (server == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        execv(arguments[1], arguments + 1);
    }
    if (server <= 0) {
        perror(arguments[1]);
        return CANNOT_START;
    }
    for (int asked = 0, status, number; sigwait(&all, &number) == 0;) {
        if (number == SIGCHLD) {
            if (reap(server, &status))
                return exit_code(status, asked);
        } else if (number == SIGALRM) {
            kill(server, SIGKILL);
        } else {
            kill(server, number);
            if (!asked && (number == SIGTERM || number == SIGINT)) {
                asked = number;
                alarm(PATIENCE);
            }
        }
    }
}
