package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"skiff.dev/skiff/internal/kubelet"
	"skiff.dev/skiff/internal/kubelet/logind"
	"skiff.dev/skiff/internal/network"
	skiffruntime "skiff.dev/skiff/internal/runtime"
)

// Down stops the process that runs on the data dir, if one does, and removes what the cluster left on this host; with purge its data
// too. Doing it twice does no harm.
func Down(ctx context.Context, o Options, purge bool) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can remove containers and links; run it with sudo")
	}
	conf := o.Config
	if _, err := os.Stat(conf.DataDir); errors.Is(err, os.ErrNotExist) {
		o.Progress(Progress{"nothing", fmt.Sprintf("there is no cluster at %s", conf.DataDir)})
		return nil
	}
	switch err := Recall(conf); {
	case errors.Is(err, os.ErrNotExist):
		o.Progress(Progress{"nothing", fmt.Sprintf("there is no cluster at %s", conf.DataDir)})
		return nil
	case err != nil:
		return err
	}
	l, err := stopRunning(o)
	if err != nil {
		return err
	}
	defer l.release()
	if err := remove(ctx, o); err != nil {
		return err
	}
	if !purge {
		return nil
	}
	o.Progress(Progress{"data", "removing " + conf.DataDir})
	return purgeDir(conf.DataDir)
}

// stopRunning asks the process on the data dir to stop, and returns the lock once it has.
func stopRunning(o Options) (*lock, error) {
	l, err := takeLock(o.Config.DataDir)
	var held *errLocked
	if !errors.As(err, &held) {
		return l, err
	}
	o.Progress(Progress{"skiff", fmt.Sprintf("stopping pid %d", held.pid)})
	if err := syscall.Kill(held.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, fmt.Errorf("stop skiff (pid %d): %w", held.pid, err)
	}
	return waitForLock(o.Config.DataDir, time.Minute)
}

// remove takes the parts away in the order in which one leans on another; what fails does not keep the rest from going.
func remove(ctx context.Context, o Options) error {
	conf := o.Config
	tell := func(part string) func(string) {
		return func(detail string) { o.Progress(Progress{part, detail}) }
	}
	steps := []struct {
		part string
		do   func(func(string)) error
	}{
		{"containers", func(p func(string)) error {
			if conf.CRIEndpoint != "" {
				agent, err := network.StandIn(networkConfig(conf, o.BinDir, o.Log))
				if err != nil {
					return err
				}
				defer agent.Close()
			}
			return skiffruntime.Remove(ctx, runtimeConfig(conf, o.BinDir, o.Log), p)
		}},
		{"volumes", func(p func(string)) error {
			return kubelet.Remove(ctx, filepath.Join(conf.DataDir, "kubelet"), p)
		}},
		{"network", func(p func(string)) error {
			return errors.Join(network.Remove(ctx, networkConfig(conf, o.BinDir, o.Log), p),
				network.RemoveLocal(conf.ServiceAddr(1)), network.RemoveLocal(conf.ServiceAddr(10)))
		}},
		{"sockets", func(func(string)) error { return errors.Join(purgeDir(conf.RunDir()), logind.Forget(conf.ClusterName)) }},
	}
	var errs []error
	for _, s := range steps {
		if err := s.do(tell(s.part)); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", s.part, err))
			continue
		}
		o.Progress(Progress{s.part, "removed"})
	}
	return errors.Join(errs...)
}

// purgeDir removes a folder and all below it, unless something is mounted there: what is mounted may be anybody's.
func purgeDir(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			return fmt.Errorf("%s is still mounted; unmount it and run 'skiff down' again", fields[4])
		}
	}
	return os.RemoveAll(dir)
}
