// Package logindtest stands in for a host's system bus with systemd-logind on it, for tests: the few calls that hold a shutdown up, and the signal that tells
// of one.
package logindtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// Logind on a bus of its own.
type Logind struct {
	settings, socket string
	listen           *net.UnixListener
	served           sync.WaitGroup

	mu        sync.Mutex
	delay     time.Duration
	preparing bool
	clients   map[*client]bool
	locks     map[*lock]bool
}

type lock struct{ who, what, mode string }

// Start one whose socket is in a folder. It waits for five seconds, as logind does, until its settings say otherwise and it is told to read them.
func Start(folder, settings string) (*Logind, error) {
	l := &Logind{
		settings: settings, socket: filepath.Join(folder, "bus"),
		delay: 5 * time.Second, clients: map[*client]bool{}, locks: map[*lock]bool{},
	}
	var err error
	if l.listen, err = net.ListenUnix("unix", &net.UnixAddr{Name: l.socket, Net: "unix"}); err != nil {
		return nil, err
	}
	l.served.Go(func() {
		for {
			conn, err := l.listen.AcceptUnix()
			if err != nil {
				return // closed
			}
			l.served.Go(func() { l.serve(conn) })
		}
	})
	return l, nil
}

// Address of the bus, for DBUS_SYSTEM_BUS_ADDRESS.
func (l *Logind) Address() string { return "unix:path=" + l.socket }

// Close ends it, and its connections.
func (l *Logind) Close() {
	_ = l.listen.Close()
	l.HangUp()
	l.served.Wait()
}

// HangUp cuts all connections, as a bus does that restarts.
func (l *Logind) HangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.clients {
		_ = c.conn.Close()
	}
}

// Prepare tells everybody that a shutdown begins, or was called off.
func (l *Logind) Prepare(begins bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = begins
	for c := range l.clients {
		_ = c.send(&dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldSender: dbus.MakeVariant(":1.0"), dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/login1")),
			dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.login1.Manager"), dbus.FieldMember: dbus.MakeVariant("PrepareForShutdown"),
		}, Body: []any{begins}})
	}
}

// Locks that hold a shutdown up now: who, what and how.
func (l *Logind) Locks() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for one := range l.locks {
		out = append(out, one.who+" "+one.what+" "+one.mode)
	}
	return out
}

// Delay is how long logind waits.
func (l *Logind) Delay() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delay
}

// client is one connection.
type client struct {
	conn   *net.UnixConn
	mu     sync.Mutex
	serial uint32
}

func (l *Logind) serve(conn *net.UnixConn) {
	defer conn.Close()
	c, in := &client{conn: conn}, bufio.NewReader(conn)
	if err := greet(conn, in); err != nil {
		return
	}
	l.mu.Lock()
	l.clients[c] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.clients, c)
	}()
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		if err := l.answer(c, call); err != nil {
			return
		}
	}
}

// greet lets in whoever comes.
func greet(conn io.Writer, in *bufio.Reader) error {
	if _, err := in.ReadByte(); err != nil {
		return err
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "OK 0123456789abcdef0123456789abcdef"
		switch line = strings.TrimSpace(line); line {
		case "AUTH":
			answer = "REJECTED EXTERNAL"
		case "AUTH EXTERNAL":
			answer = "DATA"
		case "NEGOTIATE_UNIX_FD":
			answer = "AGREE_UNIX_FD"
		case "BEGIN":
			return nil
		}
		if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
			return err
		}
	}
}

func (l *Logind) answer(c *client, call *dbus.Message) error {
	text := func(f dbus.HeaderField) string { s, _ := call.Headers[f].Value().(string); return s }
	var body []any
	switch method := text(dbus.FieldInterface) + "." + text(dbus.FieldMember); method {
	case "org.freedesktop.DBus.Hello":
		body = []any{":1.7"}
	case "org.freedesktop.DBus.AddMatch":
	case "org.freedesktop.DBus.Properties.Get":
		l.mu.Lock()
		value := map[any]any{"InhibitDelayMaxUSec": uint64(l.delay / time.Microsecond), "PreparingForShutdown": l.preparing}[call.Body[1]]
		l.mu.Unlock()
		body = []any{dbus.MakeVariant(value)}
	case "org.freedesktop.login1.Manager.Inhibit":
		return l.inhibit(c, call)
	case "org.freedesktop.systemd1.Manager.KillUnit":
		if err := l.reload(); err != nil {
			return err
		}
	default:
		return c.send(&dbus.Message{Type: dbus.TypeError, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()), dbus.FieldErrorName: dbus.MakeVariant("org.freedesktop.DBus.Error.UnknownMethod"),
		}, Body: []any{"no such method: " + method}})
	}
	return c.reply(call, body...)
}

// inhibit hands out one end of a pipe; the lock is there until nobody holds that end any more.
func (l *Logind) inhibit(c *client, call *dbus.Message) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	one := &lock{who: fmt.Sprint(call.Body[1]), what: fmt.Sprint(call.Body[0]), mode: fmt.Sprint(call.Body[3])}
	l.mu.Lock()
	l.locks[one] = true
	l.mu.Unlock()
	l.served.Go(func() {
		defer r.Close()
		_, _ = io.Copy(io.Discard, r)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.locks, one)
	})
	return errors.Join(c.reply(call, dbus.UnixFD(w.Fd())), w.Close())
}

// reload reads the settings.
func (l *Logind) reload() error {
	files, err := filepath.Glob(filepath.Join(l.settings, "*.conf"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "InhibitDelayMaxSec="); ok {
				d, err := time.ParseDuration(value + "s")
				if err != nil {
					return err
				}
				l.mu.Lock()
				l.delay = d
				l.mu.Unlock()
			}
		}
	}
	return nil
}

func (c *client) reply(call *dbus.Message, body ...any) error {
	return c.send(&dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(call.Serial())}, Body: body})
}

func (c *client) send(m *dbus.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	var out bytes.Buffer
	if n, err := m.CountFds(); err != nil {
		return err
	} else if n > 0 {
		m.Headers[dbus.FieldUnixFDs] = dbus.MakeVariant(uint32(n))
	}
	fds, err := m.EncodeToWithFDs(&out, binary.LittleEndian)
	if err != nil {
		return err
	}
	raw := out.Bytes()
	c.serial++
	binary.LittleEndian.PutUint32(raw[8:], c.serial) // only a connection of the library's own can set it
	_, _, err = c.conn.WriteMsgUnix(raw, syscall.UnixRights(fds...), nil)
	return err
}
