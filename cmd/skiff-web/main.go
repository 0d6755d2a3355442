// Command skiff-web is the program of Skiff's built-in image: a web server that shows who answered and, under the names sh, ls, wget and
// so on, the small shell that `kubectl exec` finds in it. It is static and needs nothing else in its image.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"skiff.dev/skiff/cmd/skiff-web/shell"
)

func main() {
	args := os.Args
	if len(args) > 1 && shell.Has(args[1]) {
		args = args[1:]
	}
	if shell.Has(filepath.Base(args[0])) {
		os.Exit(shell.Main(args))
	}
	if len(args) > 1 {
		fmt.Fprintf(os.Stderr, "skiff-web: there is no command %q; call it without arguments to serve on $PORT (8080)\n", args[1])
		os.Exit(2)
	}
	if err := serve(); err != nil {
		fmt.Fprintf(os.Stderr, "skiff-web: %v\n", err)
		os.Exit(1)
	}
}

// serve listens where $PORT says until SIGTERM or SIGINT.
func serve() error {
	ctx, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer restore()
	if os.Getpid() == 1 {
		go reap()
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen on port %s: %w; choose another with PORT", port, err)
	}
	return answerOn(ctx, listener)
}

// patience bounds how long connections are waited for at the end.
const patience = 5 * time.Second

// answerOn answers until ctx ends, then what is still asked over the connections that there are. (http.Server.Shutdown would drop a request that is
// the first of its connection and comes only then.)
func answerOn(ctx context.Context, listener net.Listener) error {
	ended, open := make(chan error, 1), new(connections)
	server := &http.Server{Handler: newSite(os.Stdout), ReadHeaderTimeout: 10 * time.Second, ConnState: open.note}
	fmt.Printf("%s serving on %s\n", time.Now().UTC().Format(time.RFC3339), listener.Addr())
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	fmt.Printf("%s stopping\n", time.Now().UTC().Format(time.RFC3339))
	bounded, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = listener.Close()
	<-ended
	server.SetKeepAlivesEnabled(false)
	open.wait(bounded)
	return server.Close()
}

// reap collects processes that lost their parent: the first process of a container gets them, and this program starts none itself.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		<-children
	}
}
