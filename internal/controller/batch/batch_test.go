package batch

import (
	"errors"
	"sync/atomic"
	"testing"
)

func TestGrowing(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct{ n, failAt, calls, succeeded int }{
		{n: 0, failAt: -1}, {n: 10, failAt: -1, calls: 10, succeeded: 10}, {n: 500, failAt: 0, calls: 1}, {n: 500, failAt: 4, calls: 7, succeeded: 6},
	} {
		var calls atomic.Int32
		got, err := Growing(tt.n, func(i int) error {
			calls.Add(1)
			if i == tt.failAt {
				return broken
			}
			return nil
		})
		if int(calls.Load()) != tt.calls || got != tt.succeeded || (err != nil) != (tt.failAt >= 0) {
			t.Errorf("%+v: %d calls, %d succeeded, %v", tt, calls.Load(), got, err)
		}
	}
	if n, err := Parallel(3, func(i int) error { return map[int]error{1: broken}[i] }); n != 2 || err != broken {
		t.Errorf("%d, %v", n, err)
	}
}
