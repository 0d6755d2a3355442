// Package logtest is for tests that read what is logged while it is written. Only tests import it; it imports nothing of ours.
package logtest

import (
	"strings"
	"sync"
)

// Log is where a slog.Handler may write to while a test reads. The zero value is empty.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is all that was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
