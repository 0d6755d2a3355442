package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/logtest"
)

var origin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is the time of line n: a second a line.
func at(n int) time.Time { return origin.Add(time.Duration(n) * time.Second) }

func row(n int, text string) string {
	return fmt.Sprintf("%s stdout F %s\n", at(n).Format(time.RFC3339Nano), text)
}

func rows(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteString(row(n, fmt.Sprintf("line %d", n)))
	}
	return b.String()
}

func texts(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		fmt.Fprintf(&b, "line %d\n", n)
	}
	return b.String()
}

// put writes a file, last changed when its last line was written.
func put(t *testing.T, path, text string, last time.Time) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, last, last); err != nil {
		t.Fatal(err)
	}
}

// threeFiles of a log: two rotated ones, the older compressed, and the live one.
func threeFiles(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "0.log")
	put(t, path+".20260301-120010.000000", rows(1, 10), at(10))
	if err := compress(path + ".20260301-120010.000000"); err != nil {
		t.Fatal(err)
	}
	put(t, path+".20260301-120020.000000", rows(11, 20), at(20))
	put(t, path+".20260301-120025.000000"+packing, "half", at(25)) // somebody was killed while compressing
	put(t, path, rows(21, 30), at(30))
	return path
}

func TestCopy(t *testing.T) {
	path := threeFiles(t)
	all := Options{Tail: -1, Limit: -1}
	with := func(f func(*Options)) Options {
		o := all
		f(&o)
		return o
	}
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"all":                        {all, texts(1, 30)},
		"tail in the live file":      {with(func(o *Options) { o.Tail = 3 }), texts(28, 30)},
		"tail is the live file":      {with(func(o *Options) { o.Tail = 10 }), texts(21, 30)},
		"tail into a rotated file":   {with(func(o *Options) { o.Tail = 14 }), texts(17, 30)},
		"tail into a compressed one": {with(func(o *Options) { o.Tail = 27 }), texts(4, 30)},
		"tail of more than there is": {with(func(o *Options) { o.Tail = 99 }), texts(1, 30)},
		"tail 0":                     {with(func(o *Options) { o.Tail = 0 }), ""},
		"since, in a compressed one": {with(func(o *Options) { o.Since = at(9) }), texts(9, 30)},
		"since, in the live one":     {with(func(o *Options) { o.Since = at(29) }), texts(29, 30)},
		"limit over two files":       {with(func(o *Options) { o.Limit = int64(len(texts(1, 10)) + 6) }), texts(1, 10) + "line 1"},
		"timestamps":                 {with(func(o *Options) { o.Tail, o.Timestamps = 1, true }), at(30).Format(time.RFC3339Nano) + " line 30\n"},
		"another stream":             {with(func(o *Options) { o.Stream = "stderr" }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := Copy(t.Context(), path, c.o, nil, &got); err != nil {
				t.Fatal(err)
			}
			if got.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), c.want)
			}
		})
	}
}

// runtime writes where it is told to when its log is reopened.
type runtime struct {
	runtimeapi.RuntimeServiceClient
	path string
	f    *os.File
}

func (r *runtime) ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest, ...grpc.CallOption) (*runtimeapi.ReopenContainerLogResponse, error) {
	if r.f != nil {
		r.f.Close()
	}
	var err error
	r.f, err = os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &runtimeapi.ReopenContainerLogResponse{}, err
}

func (r *runtime) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(r.f, text); err != nil {
		t.Fatal(err)
	}
}

func newRuntime(t *testing.T, path string) *runtime {
	r := &runtime{path: path}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReopenContainerLog(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.f.Close() })
	return r
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to be")
		}
	}
}

// TestFollow: nothing is lost or doubled over rotations, however many there are between two looks.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	rt := newRuntime(t, path)
	rotate := NewRotator(nil, rt, Limits{Size: 1, Files: 100}, slog.New(slog.DiscardHandler))
	rt.write(t, rows(1, 5))
	var got logtest.Log
	ended, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Copy(t.Context(), path, Options{Follow: true, Tail: -1, Limit: -1}, ended, &got) }()
	n := 6
	for range 30 {
		if err := rotate.rotate(t.Context(), "id", path); err != nil {
			t.Fatal(err)
		}
		rt.write(t, rows(n, n+2))
		n += 3
	}
	eventually(t, func() bool { return strings.HasSuffix(got.String(), texts(n-1, n-1)) })
	rt.write(t, strings.TrimSuffix(row(n, "the end"), "\n"))
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := texts(1, n-1) + "the end"; got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// TestMissedRotations is what drain does when two files came and went since it looked last.
func TestMissedRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	rt := newRuntime(t, path)
	rotate := NewRotator(nil, rt, Limits{Size: 1, Files: 100}, slog.New(slog.DiscardHandler))
	tail, _, err := newTailer(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { tail.Close() }()
	for n := range 4 {
		rt.write(t, row(n, fmt.Sprint("part ", n)))
		if err := rotate.rotate(t.Context(), "id", path); err != nil {
			t.Fatal(err)
		}
	}
	got := ""
	if err := tail.drain(false, func(e *entry) error { got += string(e.text); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := "part 0\npart 1\npart 2\npart 3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRotateKeepsTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	rt := newRuntime(t, path)
	rotate := NewRotator(nil, rt, Limits{Size: 1, Files: 3}, slog.New(slog.DiscardHandler))
	for n := range 6 {
		rt.write(t, rows(n, n))
		if err := rotate.rotate(t.Context(), "id", path); err != nil {
			t.Fatal(err)
		}
	}
	files, err := rotated(path)
	if err != nil || len(files) != 2 || !strings.HasSuffix(files[0], packed) || !strings.HasSuffix(files[1], packed) {
		t.Fatalf("files %v, %v; two compressed ones are to be left", files, err)
	}
	var got bytes.Buffer
	if err := Copy(t.Context(), path, Options{Tail: -1, Limit: -1}, nil, &got); err != nil || got.String() != texts(4, 5) {
		t.Errorf("%q, %v", got.String(), err)
	}
}

func testPod(name, uid string, l map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid), Labels: l}}
}

// node has the logs of two pods that live and one that is gone.
func node(t *testing.T) (*Keeper, string) {
	live := filepath.Join(t.TempDir(), "pods")
	k := NewKeeper(live, Default(), slog.New(slog.DiscardHandler))
	big := strings.Repeat("x", 2*block)
	for _, p := range []struct {
		pod  *corev1.Pod
		text string
	}{
		{testPod("web", "1", map[string]string{"app": "web"}), row(1, "web starts") + row(4, "web error") + row(9, "web again")},
		{testPod("db", "2", map[string]string{"app": "db"}), row(2, "db starts") + at(5).Format(time.RFC3339Nano) + " stderr P db er\n" +
			row(6, "db says") + at(7).Format(time.RFC3339Nano) + " stderr F ror\n"},
		{testPod("old", "3", map[string]string{"app": "web"}), row(0, "old "+big) + row(3, "old error")},
	} {
		dir := filepath.Join(live, Folder(p.pod.Namespace, p.pod.Name, string(p.pod.UID)))
		put(t, filepath.Join(dir, "main", "0.log"), p.text, at(9))
		if err := Sign(dir, p.pod); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Take(testPod("old", "3", map[string]string{"app": "web", "tier": "last"})); err != nil {
		t.Fatal(err)
	}
	k.takeIn()
	return k, live
}

func (l *Line) short() string {
	if l.Live {
		return "--"
	}
	return strings.TrimSpace(l.Pod + ": " + l.Text[:min(len(l.Text), 12)])
}

func TestSearch(t *testing.T) {
	k, live := node(t)
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(live), "gone", "shop_old_3", "main", "*")); len(files) != 1 || !strings.HasSuffix(files[0], "0.log.gz") {
		t.Errorf("the log of the pod that is gone is not compressed: %v", files)
	}
	selector := func(s string) labels.Selector {
		out, err := labels.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct {
		q    Query
		want string
	}{
		"everything, by time": {Query{}, "old: old xxxxxxxx, web: web starts, db: db starts, old: old error, web: web error, db: db says, db: db error, web: web again"},
		"matching":            {Query{Match: regexp.MustCompile("error$")}, "old: old error, web: web error, db: db error"},
		"selector":            {Query{Selector: selector("app=db")}, "db: db starts, db: db says, db: db error"},
		"the last labels":     {Query{Selector: selector("tier=last"), Match: regexp.MustCompile("error")}, "old: old error"},
		"the labels of now":   {Query{Selector: selector("new"), Match: regexp.MustCompile("error")}, "web: web error"},
		"since":               {Query{Since: at(6)}, "db: db says, db: db error, web: web again"},
		"since too late":      {Query{Since: at(10)}, ""},
		"another namespace":   {Query{Namespace: "sho"}, ""},
		"the namespace":       {Query{Namespace: "shop", Match: regexp.MustCompile("again")}, "web: web again"},
	} {
		t.Run(name, func(t *testing.T) {
			s := k.Searcher(func() map[string]map[string]string {
				return map[string]map[string]string{"1": {"app": "web", "new": ""}}
			})
			var got []string
			if err := s.Search(t.Context(), c.q, func(l *Line) error { got = append(got, l.short()); return nil }); err != nil {
				t.Fatal(err)
			}
			if have := strings.Join(got, ", "); have != c.want {
				t.Errorf("found\n%s\nwant\n%s", have, c.want)
			}
		})
	}
}

// TestSearchFollows pods that were there, and one that comes and goes while somebody follows.
func TestSearchFollows(t *testing.T) {
	k, live := node(t)
	s := k.Searcher(func() map[string]map[string]string { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got logtest.Log
	done := make(chan error, 1)
	go func() {
		done <- s.Search(ctx, Query{Follow: true, Match: regexp.MustCompile("error|new"), Namespace: "shop"}, func(l *Line) error {
			_, err := fmt.Fprintln(&got, l.short())
			return err
		})
	}()
	before := "old: old error\nweb: web error\ndb: db error\n--\n"
	eventually(t, func() bool { return got.String() == before })
	now := func(text string) string {
		return time.Now().UTC().Format(time.RFC3339Nano) + " stdout F " + text + "\n"
	}
	web, err := os.OpenFile(filepath.Join(live, "shop_web_1", "main", "0.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	if _, err := io.WriteString(web, now("new")+now("other")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return got.String() == before+"web: new\n" })

	rt := newRuntime(t, filepath.Join(live, "shop_late_4", "main", "0.log"))
	rt.write(t, now("new too"))
	eventually(t, func() bool { return strings.HasSuffix(got.String(), "late: new too\n") })
	if err := NewRotator(nil, rt, Limits{Size: 1, Files: 5}, slog.New(slog.DiscardHandler)).rotate(ctx, "id", rt.path); err != nil {
		t.Fatal(err)
	}
	rt.write(t, now("new file"))
	eventually(t, func() bool { return strings.HasSuffix(got.String(), "late: new file\n") })
	rt.write(t, strings.TrimSuffix(now("new last"), "\n"))
	if err := k.Take(testPod("late", "4", nil)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return strings.HasSuffix(got.String(), "late: new last\n") })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestExcess(t *testing.T) {
	all := []kept{{"a", at(0), 30}, {"b", at(10), 30}, {"c", at(20), 30}}
	for name, c := range map[string]struct {
		now  time.Time
		room int64
		want int
	}{
		"nothing":          {at(30), 100, 0},
		"one is too old":   {at(60), 100, 1},
		"one is too much":  {at(30), 89, 1},
		"two are too much": {at(30), 59, 2},
		"all are too old":  {at(80), 100, 3},
		"no room":          {at(30), 0, 3},
	} {
		if got := excess(all, c.now, time.Minute, c.room); got != c.want {
			t.Errorf("%s: %d are to go, want %d", name, got, c.want)
		}
	}
}

// TestKeep: a day after its pod the log is removed, by itself, and nothing runs before.
func TestKeep(t *testing.T) {
	live := filepath.Join(t.TempDir(), "pods")
	for _, name := range []string{"shop_old_3", "shop_silent_5"} {
		put(t, filepath.Join(live, name, "main", "0.log"), map[string]string{"shop_old_3": rows(1, 2)}[name], at(2))
	}
	gone := filepath.Join(filepath.Dir(live), "gone", "*")
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(live, Default(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		if err := k.Sweep(func(string) bool { return false }); err != nil {
			t.Fatal(err)
		}
		have := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if dirs, err := filepath.Glob(gone); err != nil || len(dirs) != want {
				t.Errorf("%v later: %v, %v", after, dirs, err)
			}
		}
		have(time.Minute, 1) // what says nothing isn't kept
		have(23*time.Hour, 1)
		have(time.Hour, 0)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
