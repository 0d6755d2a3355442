package registry

import (
	"testing"
	"time"
)

func TestSteps(t *testing.T) {
	var s Steps
	at := time.Now()
	s.Begin(at)
	for _, one := range []step{{"a", 20 * time.Millisecond}, {"b", worth - 1}, {"c", 0}, {"d", 1234567 * time.Microsecond}, {"e", -time.Second}, {"a", worth}} {
		at = at.Add(one.took)
		s.Until(one.name, at)
	}
	if got := s.String(); got != "a 20ms, d 1.235s, a 10ms" {
		t.Error(got)
	}
	var none *Steps
	none.Until("a", at)
	none.Done("a")
}
