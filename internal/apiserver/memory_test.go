package apiserver_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// peak does something and says how many bytes more than before are in use at most meanwhile.
func peak(do func()) int64 {
	used := func() int64 {
		runtime.GC()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}} // without what was let go since
		metrics.Read(live)
		return int64(live[0].Value.Uint64()) //nolint:gosec // no machine has as much
	}
	before, most, done := used(), int64(0), make(chan struct{})
	go func() { defer close(done); do() }()
	for {
		most = max(most, used()-before)
		select {
		case <-done:
			return most
		default:
		}
	}
}

// Lists hold nothing of their own while they are written: however many clients list everything at once, there is one encoding of each object, which they share.
func TestListsHoldNothingOfTheirOwn(t *testing.T) {
	f := start(t)
	const objects, size, clients = 1000, 20_000, 32
	for i := range objects {
		f.Must(configMap(fmt.Sprint("c", i), "k", strings.Repeat("x", size)))
	}
	all := make([]*http.Client, clients)
	for i := range all {
		all[i] = f.client("admin", "system:masters")
	}
	held := peak(func() {
		var running sync.WaitGroup
		for i, c := range all {
			running.Go(func() {
				for range 3 {
					r, err := http.NewRequest(http.MethodGet, "https://"+f.host+configMaps, nil)
					if err != nil {
						t.Error(err)
						return
					}
					r.Header.Set("Accept", []string{"application/json", protobuf}[i%2])
					resp, err := c.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					n, err := io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					if err != nil || n < objects*size {
						t.Errorf("a list of %d bytes: %v", n, err)
					}
				}
			})
		}
		running.Wait()
	})
	// Each holding its own would be twice as much; what is garbage by the time it is counted takes some of it.
	if most := int64(clients / 2 * objects * size); held > most {
		t.Errorf("%d lists of %d MB at once held %d MB", clients, objects*size>>20, held>>20)
	}
}

// A watch whose client takes nothing holds what it is writing, not what comes after.
func TestWatchesHoldNoQueue(t *testing.T) {
	f := start(t)
	const watches, changes, size = 40, 60, 500_000
	f.Must(configMap("large"))
	for range watches {
		conn, err := tls.Dial("tcp", f.host, &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{*f.certificate("admin", "system:masters")}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", stallWatch)
	}
	f.watches(fmt.Sprint(watches))
	maps := f.clientset().CoreV1().ConfigMaps("default")
	held := peak(func() {
		for i := range changes {
			patch := fmt.Sprintf(`{"data":{"k":"%d%s"}}`, i, strings.Repeat("x", size))
			if _, err := maps.Patch(ctx, "large", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if most := int64(watches * 4 * size); held > most {
		t.Errorf("%d watches held %d MB while %d MB were written for each", watches, held>>20, changes*size>>20)
	}
}
