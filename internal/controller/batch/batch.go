// Package batch makes many calls to the API at once without making many mistakes at once.
package batch

import "sync"

// Growing calls do for 0 … n-1 in batches of 1, 2, 4, …, each batch at once, and stops after a batch with an error: what cannot be made (no
// quota, a rejecting webhook) is found out by one call, not by five hundred. It returns how many calls succeeded.
func Growing(n int, do func(i int) error) (succeeded int, err error) {
	for from, size := 0, 1; from < n; from, size = from+size, size*2 {
		size = min(size, n-from)
		failed, err := parallel(from, size, do)
		succeeded += size - failed
		if err != nil {
			return succeeded, err
		}
	}
	return succeeded, nil
}

// Parallel calls do for 0 … n-1 at once and returns how many calls succeeded and the first error there was.
func Parallel(n int, do func(i int) error) (succeeded int, err error) {
	failed, err := parallel(0, n, do)
	return n - failed, err
}

func parallel(from, n int, do func(i int) error) (failed int, err error) {
	errs := make([]error, n)
	var calls sync.WaitGroup
	for i := 1; i < n; i++ {
		calls.Go(func() { errs[i] = do(from + i) })
	}
	if n > 0 {
		errs[0] = do(from)
	}
	calls.Wait()
	for i := n - 1; i >= 0; i-- {
		if errs[i] != nil {
			failed++
			err = errs[i]
		}
	}
	return failed, err
}
