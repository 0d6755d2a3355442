// Command peer is what tests run in containers where the built-in image's tools do not do: a UDP server, one that tells its health
// over gRPC, a process that does not want to end, one that says how it was asked to, one that shows its terminal's size, and one that writes to a disk past the cache.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	modes := map[string]func() error{"udp": udp, "health": healthy, "stubborn": stubborn, "tidy": tidy, "asked": asked, "window": window, "chatter": chatter, "disk": disk}
	if len(os.Args) != 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: peer udp|health|stubborn|tidy|asked|window|chatter|disk")
		os.Exit(2)
	}
	if err := modes[os.Args[1]](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// udp answers each datagram on port 5000 with the host's name and what it said.
func udp() error {
	conn, err := net.ListenPacket("udp", ":5000")
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo([]byte(name+" "+string(buf[:n])), from); err != nil {
			return err
		}
	}
}

// healthy says over gRPC, on port 6000, that it is, and that a service of its is not.
func healthy() error {
	listener, err := net.Listen("tcp", ":6000")
	if err != nil {
		return err
	}
	all, server := health.NewServer(), grpc.NewServer()
	all.SetServingStatus("ill", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, all)
	return server.Serve(listener)
}

// stubborn does not end on SIGTERM.
func stubborn() error {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("staying")
	time.Sleep(time.Hour)
	return nil
}

// tidy takes half a second to end on SIGTERM, and says so.
func tidy() error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	fmt.Println("waiting")
	<-asked
	time.Sleep(500 * time.Millisecond)
	fmt.Println("tidied up")
	return nil
}

// asked ends half a second after the first signal that asks it to, and writes its $NAME and the signal's number into /v/ends.
func asked() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	fmt.Println("waiting")
	number := (<-signals).(syscall.Signal)
	time.Sleep(500 * time.Millisecond)
	f, err := os.OpenFile("/v/ends", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s %d\n", os.Getenv("NAME"), number)
	return err
}

// window prints the size of its terminal, and again whenever it changes, until a line comes in.
func window() error {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	line := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(line)
	}()
	for {
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return fmt.Errorf("standard input is no terminal: %w", err)
		}
		fmt.Printf("%d rows, %d columns\n", size.Row, size.Col)
		select {
		case <-changed:
		case <-line:
			return nil
		}
	}
}

// chatter prints thirty megabytes in numbered lines, then a line now and then.
func chatter() error {
	out := bufio.NewWriter(os.Stdout)
	padding := strings.Repeat(".", 990)
	for i := range 30_000 {
		fmt.Fprintf(out, "%08d %s\n", i, padding)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for i := 30_000; ; i++ {
		fmt.Printf("%08d\n", i)
		time.Sleep(100 * time.Millisecond)
	}
}

// disk writes four megabytes to /data/f and reads them again, past the kernel's cache, so that the container is told of as who did it.
func disk() error {
	const block, blocks = 1 << 20, 4
	buf, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned, as such writing wants it
	if err != nil {
		return err
	}
	f, err := os.OpenFile("/data/f", os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range blocks {
		if _, err := f.WriteAt(buf, int64(i)*block); err != nil {
			return err
		}
	}
	for i := range blocks {
		if _, err := f.ReadAt(buf, int64(i)*block); err != nil {
			return err
		}
	}
	fmt.Println("written and read")
	time.Sleep(time.Hour)
	return nil
}
