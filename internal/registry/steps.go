package registry

import (
	"fmt"
	"strings"
	"time"
)

// Steps are those of a request that took long, for whoever wonders why it was slow. A step begins where the one before it ended. Short ones are not
// remembered, so that a fast request pays for looks at the clock and nothing else. One goroutine uses them. Nil remembers nothing.
type Steps struct {
	at   time.Time // when the last one ended
	long []step
}

type step struct {
	name string
	took time.Duration
}

// worth is how long a step must take to be remembered.
const worth = 10 * time.Millisecond

// Begin says when the first step began.
func (s *Steps) Begin(at time.Time) { s.at = at }

// Done ends a step now.
func (s *Steps) Done(name string) {
	if s != nil {
		s.Until(name, time.Now())
	}
}

// Until ends a step at a time that its caller knows.
func (s *Steps) Until(name string, at time.Time) {
	if s == nil {
		return
	}
	if took := at.Sub(s.at); took >= worth {
		s.long = append(s.long, step{name, took})
	}
	s.at = at
}

// String lists the steps in their order: "authorize 20ms, store 1.2s".
func (s *Steps) String() string {
	texts := make([]string, len(s.long))
	for i, one := range s.long {
		texts[i] = fmt.Sprintf("%s %v", one.name, one.took.Round(time.Millisecond))
	}
	return strings.Join(texts, ", ")
}
