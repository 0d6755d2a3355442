package logind_test

import (
	"slices"
	"testing"
	"time"

	"skiff.dev/skiff/internal/kubelet/logind"
	"skiff.dev/skiff/internal/kubelet/logind/logindtest"
)

func TestLogind(t *testing.T) {
	ctx := t.Context()
	settings := t.TempDir()
	host, err := logindtest.Start(t.TempDir(), settings)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", host.Address())
	bus, err := logind.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()

	if d, err := bus.MaxDelay(ctx); d != 5*time.Second || err != nil {
		t.Errorf("it waits for %s, %v", d, err)
	}
	if d, err := bus.RaiseDelay(ctx, settings, logind.File("c"), 90*time.Second); d != 90*time.Second || err != nil {
		t.Errorf("it waits for %s, %v", d, err)
	}
	locks := func(want ...string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !slices.Equal(host.Locks(), want); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("locks: %q, want %q", host.Locks(), want)
			}
		}
	}
	lock, err := bus.Inhibit(ctx, "me", "because")
	if err != nil {
		t.Fatal(err)
	}
	locks("me shutdown delay")
	for _, want := range []bool{true, false} {
		host.Prepare(want)
		if begins, ok := bus.Next(ctx); begins != want || !ok {
			t.Errorf("it says %v, %v; want %v", begins, ok, want)
		}
		if yes, err := bus.Preparing(ctx); yes != want || err != nil {
			t.Errorf("it is preparing: %v, %v; want %v", yes, err, want)
		}
	}
	host.HangUp()
	if _, ok := bus.Next(ctx); ok {
		t.Error("it talks on after the connection is lost")
	}
	locks("me shutdown delay") // it outlives the connection
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	locks()
}

func TestNoLogind(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	if _, err := logind.Dial(t.Context()); err == nil {
		t.Error("there is none, and it answers")
	}
}
