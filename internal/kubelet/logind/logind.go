// Package logind tells when the host is about to shut down, and holds that up for a while: the delay inhibitors of systemd-logind, over D-Bus.
package logind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	service = "org.freedesktop.login1"
	path    = "/org/freedesktop/login1"
	manager = "org.freedesktop.login1.Manager"

	prepare = "PrepareForShutdown"

	patience = 10 * time.Second // for an answer
)

// Bus is a connection to logind.
type Bus struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
}

// Dial logind at the host's system bus. An error means that the host has none, or that it doesn't answer.
func Dial(ctx context.Context) (*Bus, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	b := &Bus{conn: conn, signals: make(chan *dbus.Signal, 16)}
	conn.Signal(b.signals)
	// First: what logind says from now on is not missed.
	err = conn.AddMatchSignal(dbus.WithMatchSender(service), dbus.WithMatchObjectPath(path), dbus.WithMatchInterface(manager), dbus.WithMatchMember(prepare))
	if err == nil {
		_, err = b.MaxDelay(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask logind: %w", err), conn.Close())
	}
	return b, nil
}

// Close gives up the connection; locks are held on.
func (b *Bus) Close() error { return b.conn.Close() }

// property of logind's.
func (b *Bus) property(ctx context.Context, name string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var v dbus.Variant
	if err := b.conn.Object(service, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, manager, name).Store(&v); err != nil {
		return err
	}
	return v.Store(out)
}

// MaxDelay is how long logind waits for those who hold it up.
func (b *Bus) MaxDelay(ctx context.Context) (time.Duration, error) {
	var micro uint64
	err := b.property(ctx, "InhibitDelayMaxUSec", &micro)
	return time.Duration(micro) * time.Microsecond, err
}

// Preparing tells that a shutdown has begun.
func (b *Bus) Preparing(ctx context.Context) (yes bool, err error) {
	err = b.property(ctx, "PreparingForShutdown", &yes)
	return yes, err
}

// Next is what logind says next: a shutdown begins, or the one that had begun was called off. ok is false when the connection is lost or ctx ends.
func (b *Bus) Next(ctx context.Context) (begins, ok bool) {
	for {
		select {
		case <-ctx.Done():
			return false, false
		case s, open := <-b.signals:
			if !open {
				return false, false
			}
			if s.Name != manager+"."+prepare || len(s.Body) != 1 {
				continue
			}
			if begins, ok := s.Body[0].(bool); ok {
				return begins, true
			}
		}
	}
}

// Inhibit holds a shutdown up until the lock is closed, or for as long as logind waits.
func (b *Bus) Inhibit(ctx context.Context, who, why string) (lock *os.File, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var fd dbus.UnixFD
	if err := b.conn.Object(service, path).CallWithContext(ctx, manager+".Inhibit", 0, "shutdown", who, why, "delay").Store(&fd); err != nil {
		return nil, fmt.Errorf("take logind's inhibitor lock: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}

// Settings is the folder of logind's settings that go with a reboot.
const Settings = "/run/systemd/logind.conf.d"

// File is a cluster's among them.
func File(cluster string) string { return "99-" + cluster + ".conf" }

// Forget what a cluster wrote there. Idempotent.
func Forget(cluster string) error {
	if err := os.Remove(filepath.Join(Settings, File(cluster))); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// RaiseDelay has logind wait for that long, by a file in a folder of its settings; it returns how long it waits then.
func (b *Bus) RaiseDelay(ctx context.Context, folder, file string, want time.Duration) (time.Duration, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return 0, err
	}
	text := fmt.Sprintf("# Written by Skiff, for --shutdown-grace-period.\n[Login]\nInhibitDelayMaxSec=%d\n", int64(want/time.Second))
	if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o644); err != nil {
		return 0, err
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := b.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").CallWithContext(bounded, "org.freedesktop.systemd1.Manager.KillUnit", 0,
		"systemd-logind.service", "all", int32(syscall.SIGHUP)).Err
	if err != nil {
		return 0, fmt.Errorf("have logind read its settings again: %w", err)
	}
	for { // it reads them a moment after the signal
		got, err := b.MaxDelay(ctx)
		if err != nil || got >= want || bounded.Err() != nil {
			return got, err
		}
		select {
		case <-bounded.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
