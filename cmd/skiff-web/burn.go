package main

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"time"
)

// longestBurn bounds what one request can cost.
const longestBurn = 5 * time.Second

// burn keeps one core busy for as many milliseconds as the request asks for: load for who tries out autoscaling. It is there with BURN=1 only.
func burn(w http.ResponseWriter, r *http.Request) {
	ms := 100
	if text := r.URL.Query().Get("ms"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > int(longestBurn.Milliseconds()) {
			http.Error(w, fmt.Sprintf("ms must be a number from 0 to %d", longestBurn.Milliseconds()), http.StatusBadRequest)
			return
		}
		ms = n
	}
	seed, work, end := maphash.MakeSeed(), make([]byte, 64<<10), time.Now().Add(time.Duration(ms)*time.Millisecond)
	for time.Now().Before(end) && r.Context().Err() == nil {
		maphash.Bytes(seed, work)
	}
	fmt.Fprintf(w, "burnt %d ms\n", ms)
}
