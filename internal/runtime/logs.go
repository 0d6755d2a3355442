package runtime

import (
	"context"
	"errors"
	"io"
	"log/slog"
	goruntime "runtime"
	"slices"
	"sync/atomic"

	"github.com/sirupsen/logrus"
)

// logHook hands containerd's log, which goes through one global logger, to ours.
type logHook struct{ log *slog.Logger }

// redirectLogs sends containerd's warnings and worse to log; with debugging on, everything. It stays so: some of containerd's goroutines
// outlive its stop and still have something to say.
func redirectLogs(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		std.SetLevel(logrus.DebugLevel)
	}
	replaced := logrus.LevelHooks{}
	replaced.Add(logHook{log})
	std.ReplaceHooks(replaced)
	std.ExitFunc = exitHook
}

// unremarkable are warnings about what is as it should be.
var unremarkable = map[string]bool{
	"failed check for fsverity support": true, // few file systems have it, and nothing needs it
	"copy shim log":                     true, // it ends when the shim does
	"failed to load cni during init, please check CRI plugin status before setting up network for pods": true, // the node's addresses come later
}

func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch e.Level {
	case logrus.InfoLevel:
		level = slog.LevelInfo
	case logrus.WarnLevel:
		level = slog.LevelWarn
	case logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel:
		level = slog.LevelError
	case logrus.DebugLevel, logrus.TraceLevel:
	}
	if unremarkable[e.Message] {
		level = slog.LevelDebug
	}
	keys := make([]string, 0, len(e.Data))
	for key := range e.Data {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	args := make([]any, 0, 2*len(keys))
	for _, key := range keys {
		args = append(args, key, e.Data[key])
	}
	if e.Level == logrus.FatalLevel {
		if err, ok := e.Data[logrus.ErrorKey].(error); ok {
			lastFatal.Store(&err)
		}
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	h.log.Log(ctx, level, e.Message, args...)
	return nil
}

// containerd ends the process where it sees no way on. Here that ends the calling goroutine and fails Run, so that the process stops in
// order. There is one containerd in a process, as there is one logger.
var (
	lastFatal    atomic.Pointer[error]
	fatalHandler atomic.Pointer[func(error)]
)

func onFatal(do func(error)) { fatalHandler.Store(&do) }

func exitHook(int) {
	err := errors.New("it gave up; the log says why")
	if told := lastFatal.Swap(nil); told != nil {
		err = *told
	}
	if do := fatalHandler.Load(); do != nil {
		(*do)(err)
	}
	goruntime.Goexit()
}
