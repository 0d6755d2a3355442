package replicaset

import "sync"

// inBatches calls do n times in batches of 1, 2, 4, …, each batch at once, and stops after a batch with an error: what cannot be made (no
// quota, a rejecting webhook) is found out by one call, not by five hundred. It returns how many calls succeeded.
func inBatches(n int, do func() error) (succeeded int, err error) {
	for size := 1; n > 0; size *= 2 {
		size = min(size, n)
		var mu sync.Mutex
		failed := 0
		err = inParallel(size, func(int) error {
			err := do()
			if err != nil {
				mu.Lock()
				failed++
				mu.Unlock()
			}
			return err
		})
		succeeded += size - failed
		if err != nil {
			return succeeded, err
		}
		n -= size
	}
	return succeeded, nil
}

// inParallel calls do for 0 … n-1 at once and returns the first error there was.
func inParallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var calls sync.WaitGroup
	for i := 1; i < n; i++ {
		calls.Go(func() { errs[i] = do(i) })
	}
	if n > 0 {
		errs[0] = do(0)
	}
	calls.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
