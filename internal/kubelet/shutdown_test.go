package kubelet

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skiff.dev/skiff/internal/api/shutdown"
)

// TestShutdownWithoutLogind: a host without logind is told of once, and nothing else comes of it; without periods nobody looks for it.
func TestShutdownWithoutLogind(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	for periods, want := range map[time.Duration]int{0: 0, time.Minute: 1} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			all, err := shutdown.Of(periods, 0)
			if err != nil {
				t.Fatal(err)
			}
			k := &Kubelet{cfg: Config{Shutdown: all}, log: slog.New(slog.NewTextHandler(&out, nil))}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := k.runShutdown(ctx); err != nil {
				t.Error(err)
			}
			if got := strings.Count(out.String(), "\n"); got != want || want > 0 && !strings.Contains(out.String(), "looking for systemd-logind") {
				t.Errorf("%s: %d lines, want %d:\n%s", periods, got, want, out.String())
			}
		})
	}
}
