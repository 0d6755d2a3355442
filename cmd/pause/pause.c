// pause holds a pod's namespaces open. It sleeps, reaps what is handed to it when the pod's containers share its process namespace, and
// ends at once when it is told to. Built static: it is the only file of its image.
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_stop(int sig) {
	(void)sig;
	stop = 1;
}

static void on_child(int sig) {
	(void)sig;
}

int main(void) {
	struct sigaction quit = {.sa_handler = on_stop}, child = {.sa_handler = on_child, .sa_flags = SA_NOCLDSTOP};
	sigset_t all, old;

	// Signals arrive only inside sigsuspend, so that none is lost between looking and sleeping.
	sigemptyset(&all);
	sigaddset(&all, SIGTERM);
	sigaddset(&all, SIGINT);
	sigaddset(&all, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &all, &old) || sigaction(SIGTERM, &quit, NULL) || sigaction(SIGINT, &quit, NULL) ||
	    sigaction(SIGCHLD, &child, NULL)) {
		perror("pause: signals");
		return 1;
	}
	sigdelset(&old, SIGTERM);
	sigdelset(&old, SIGINT);
	sigdelset(&old, SIGCHLD);
	while (!stop) {
		sigsuspend(&old);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return 0;
}
