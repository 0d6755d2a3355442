package configfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// settle is how long a file must be left alone before it is read: files are written in several steps.
	settle = 200 * time.Millisecond
	// lookEvery is how old a change may get that nobody was told of, because a folder further up or the target of a link was replaced. It is also when a
	// file that could not be used is tried again: what it refers to may have changed. Upstream looks as often.
	lookEvery = time.Minute
)

// Follower reads a file, or the manifests of a folder, again when it changed. While what it holds cannot be used, what it held before stays in force.
type Follower struct {
	Key, File string
	Folder    bool                                        // File is a folder, whose content is read by ReadFolder
	Holds     []byte                                      // what is in force
	Read      func(ctx context.Context, raw []byte) error // makes a content take effect, or says what is wrong with it
	Figures   *Figures
	Log       *slog.Logger

	told string // the last complaint, which is made once
}

// Run follows the file until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	var events <-chan fsnotify.Event
	var lost <-chan error
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer w.Close()
		events, lost = w.Events, w.Errors
		err = w.Add(f.watched())
	}
	if err != nil {
		f.Log.Warn("changes of a configuration file are noticed within a minute only: its folder cannot be watched", "setting", f.Key, "file", f.File, "err", err)
	}
	f.Figures.holds(f.Holds)
	timer := time.NewTimer(settle) // it may have changed while the server started
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			if f.concerns(e.Name) {
				timer.Reset(settle)
			}
		case <-lost:
			timer.Reset(settle)
		case <-timer.C:
			f.look(ctx)
			timer.Reset(lookEvery)
		}
	}
}

// watched is a folder: files are replaced, folders stay.
func (f *Follower) watched() string {
	if f.Folder {
		return f.File
	}
	return filepath.Dir(f.File)
}

// concerns says whether something in the watched folder is the file, or the link by which a mounted ConfigMap replaces all its files at once.
func (f *Follower) concerns(name string) bool {
	return f.Folder || filepath.Base(name) == filepath.Base(f.File) || filepath.Base(name) == "..data"
}

// look reads the file, if it holds something else than what is in force.
func (f *Follower) look(ctx context.Context) {
	read := os.ReadFile
	if f.Folder {
		read = ReadFolder
	}
	raw, err := read(f.File)
	if err == nil && bytes.Equal(raw, f.Holds) {
		f.told = ""
		return
	}
	if err == nil {
		err = f.Read(ctx, raw)
	}
	if ctx.Err() != nil {
		return
	}
	f.Figures.count(err)
	switch {
	case err == nil:
		f.Holds, f.told = raw, ""
		f.Figures.holds(raw)
		f.Log.Info("a configuration file has changed and is in force", "setting", f.Key, "file", f.File)
	case f.told != err.Error():
		f.told = err.Error()
		f.Log.Error("a configuration file has changed and cannot be used; what it held before stays in force", "setting", f.Key, "file", f.File, "err", err)
	}
}

// Figures count how often a file was read again, and show what is in force.
type Figures struct {
	reads      *prometheus.CounterVec
	last, info *prometheus.GaugeVec
}

// NewFigures registers the figures of one file by upstream's names, which begin with that of its controller there ("authorization_config_controller").
// What several files have in common are labels. With nowhere to register them they are nil, and count nothing.
func NewFigures(reg prometheus.Registerer, controller string, labels prometheus.Labels) *Figures {
	if reg == nil {
		return nil
	}
	named := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "apiserver", Subsystem: controller, Name: name, Help: help, ConstLabels: labels}
	}
	f := &Figures{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts(named("automatic_reloads_total", "How often the file was read again, by success and failure.")), []string{"status"}),
		last:  prometheus.NewGaugeVec(prometheus.GaugeOpts(named("automatic_reload_last_timestamp_seconds", "When the file was last read again, by success and failure.")), []string{"status"}),
		info:  prometheus.NewGaugeVec(prometheus.GaugeOpts(named("last_config_info", "1, with a hash of the content that is in force.")), []string{"hash"}),
	}
	reg.MustRegister(f.reads, f.last, f.info)
	return f
}

func (f *Figures) holds(content []byte) {
	if f == nil {
		return
	}
	f.info.Reset()
	f.info.WithLabelValues(fmt.Sprintf("sha256:%x", sha256.Sum256(content))).Set(1)
}

func (f *Figures) count(err error) {
	if f == nil {
		return
	}
	status := "success"
	if err != nil {
		status = "failure"
	}
	f.reads.WithLabelValues(status).Inc()
	f.last.WithLabelValues(status).SetToCurrentTime()
}
