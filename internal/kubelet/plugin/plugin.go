// Package plugin finds the node's plug-ins: each puts a socket into <kubelet root>/plugins_registry and answers there who it is. Kinds of plug-ins
// are handlers by type; a driver that runs as a pod and one that runs on the host look the same.
//
// A socket that is there is registered, one that is gone is not; the folder alone decides, so a restart of the kubelet finds all anew.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	answerTime = 10 * time.Second
	retryFirst = 500 * time.Millisecond
	retryLast  = time.Minute
)

// Handler takes plug-ins of one type.
type Handler interface {
	// Register takes a plug-in in, or in again; endpoint is the socket it serves at.
	Register(ctx context.Context, name, endpoint string, versions []string) error
	Deregister(ctx context.Context, name, endpoint string)
}

// Watcher of a folder of sockets.
type Watcher struct {
	dir      string
	handlers map[string]Handler
	log      *slog.Logger
	known    map[string]registered // by socket
	retry    map[string]time.Duration
	again    chan string
}

type registered struct{ kind, name, endpoint string }

// New returns a watcher of dir; handlers are by type, such as registration.CSIPlugin.
func New(dir string, handlers map[string]Handler, log *slog.Logger) *Watcher {
	return &Watcher{dir: dir, handlers: handlers, log: log, known: map[string]registered{}, retry: map[string]time.Duration{}, again: make(chan string, 16)}
}

// Run until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return fmt.Errorf("make the folder of plug-in sockets: %w", err)
	}
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", w.dir, err)
	}
	defer events.Close()
	if err := events.Add(w.dir); err != nil {
		return fmt.Errorf("watch %s: %w", w.dir, err)
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		w.look(ctx, filepath.Join(w.dir, e.Name()))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events.Events:
			if e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				delete(w.retry, e.Name)
				w.look(ctx, e.Name)
			}
		case err := <-events.Errors:
			w.log.Warn("watch plug-in sockets", "err", err)
		case socket := <-w.again:
			w.look(ctx, socket)
		}
	}
}

// look brings what is known of a socket up to date. A plug-in that started anew has made its socket anew.
func (w *Watcher) look(ctx context.Context, socket string) {
	info, err := os.Stat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		if r, was := w.known[socket]; was {
			delete(w.known, socket)
			w.log.Info("a plug-in left", "type", r.kind, "name", r.name)
			w.handlers[r.kind].Deregister(ctx, r.name, r.endpoint)
		}
		return
	}
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return
	}
	if err := w.register(ctx, socket); err != nil && ctx.Err() == nil {
		wait := min(max(retryFirst, 2*w.retry[socket]), retryLast)
		w.retry[socket] = wait
		w.log.Warn("register a plug-in; trying again", "socket", socket, "err", err, "in", wait)
		time.AfterFunc(wait, func() {
			select {
			case w.again <- socket:
			case <-ctx.Done():
			}
		})
		return
	}
	delete(w.retry, socket)
}

func (w *Watcher) register(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	conn, err := Dial(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := registration.NewRegistrationClient(conn)
	info, err := c.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("ask who it is: %w", err)
	}
	endpoint := info.Endpoint
	if endpoint == "" {
		endpoint = socket
	}
	h := w.handlers[info.Type]
	if h == nil {
		err = fmt.Errorf("plug-ins of type %q are not supported", info.Type)
	} else {
		err = h.Register(ctx, info.Name, endpoint, info.SupportedVersions)
	}
	status := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = err.Error()
	}
	if _, told := c.NotifyRegistrationStatus(ctx, status); told != nil && err == nil {
		err = fmt.Errorf("tell it that it is registered: %w", told)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", info.Type, info.Name, err)
	}
	w.known[socket] = registered{info.Type, info.Name, endpoint}
	w.log.Info("a plug-in is registered", "type", info.Type, "name", info.Name)
	return nil
}

// Dial connects to a plug-in's socket.
func Dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}
