package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of a query for the host's logs, as in upstream's kubelet.
const (
	mostServices    = 4
	longestService  = 256
	mostTailLines   = 100000
	hostLogsTime    = 30 * time.Second
	journalDate     = "2006-01-02 15:04:05 UTC" // it would take another for the host's own time
	notServiceChars = `[^a-zA-Z\-_0-9@]`
	journalLate     = "\nerror: journal output not available: it takes longer than %s\n"
)

// Limits of our own. Each query reads the journal, with root's rights, for as long as it may.
const (
	mostQueries    = 4 // at a time
	longestPattern = 4096
)

var unsafeService = regexp.MustCompile(notServiceChars)

// hostLogs are the logs of the host's services, out of its journal or a file, and the files of a folder (KEP-2258).
type hostLogs struct {
	files   http.FileSystem
	journal string        // the program that reads it
	asked   chan struct{} // holds one for each query that is being answered
}

func newHostLogs(files http.FileSystem, journal string) *hostLogs {
	return &hostLogs{files: files, journal: journal, asked: make(chan struct{}, mostQueries)}
}

// hostQuery is what is asked of the logs of services, or which one file.
type hostQuery struct {
	services, files []string
	since, until    *time.Time
	tail, boot      *int
	pattern         string
}

// ServeHTTP answers a query; without one, or without any parameter that belongs to it, it shows the files.
func (h *hostLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, errs := hostQueryOf(r.URL.Query())
	if len(errs) > 0 {
		badRequest(w, errs.ToAggregate())
		return
	}
	if q == nil {
		http.FileServer(h.files).ServeHTTP(w, r)
		return
	}
	if r.URL.Path != "" && r.URL.Path != "/" {
		http.Error(w, "path not allowed in query mode", http.StatusNotAcceptable)
		return
	}
	if errs := q.check(); len(errs) > 0 {
		http.Error(w, errs.ToAggregate().Error(), http.StatusNotAcceptable)
		return
	}
	if len(q.files) == 1 {
		h.show(w, r, q.files[0])
		return
	}
	select {
	case h.asked <- struct{}{}:
		defer func() { <-h.asked }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("this node is answering %d queries for its logs already", mostQueries), http.StatusTooManyRequests)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	ctx, cancel := context.WithTimeout(r.Context(), hostLogsTime)
	defer cancel()
	// Whoever asks and does not read the answer is not waited for any longer than that.
	answer := http.NewResponseController(w)
	_ = answer.SetWriteDeadline(time.Now().Add(hostLogsTime + time.Second))
	defer func() { _ = answer.SetWriteDeadline(time.Time{}) }()
	h.write(ctx, w, q)
}

// show one file, or what is in a folder.
func (h *hostLogs) show(w http.ResponseWriter, r *http.Request, name string) {
	name = strings.ReplaceAll(name, `\`, "/")
	f, err := h.files.Open(name)
	if err != nil {
		http.Error(w, field.Invalid(field.NewPath("query"), []string{name}, err.Error()).Error(), http.StatusNotAcceptable)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case info.IsDir():
		r.URL.Path = strings.TrimSuffix(name, "/") + "/"
		http.FileServer(h.files).ServeHTTP(w, r)
	default:
		http.ServeContent(w, r, info.Name(), info.ModTime(), f)
	}
}

// hostQueryOf reads the parameters query, sinceTime, untilTime, boot, tailLines and pattern; nil if there is none of them.
func hostQueryOf(v url.Values) (*hostQuery, field.ErrorList) {
	var errs field.ErrorList
	q, asked := hostQuery{pattern: v.Get("pattern")}, v.Get("pattern") != ""
	for _, name := range v["query"] {
		switch {
		case strings.ContainsAny(name, `/\`):
			q.files = append(q.files, name)
		case strings.TrimSpace(name) != "":
			q.services = append(q.services, name)
		}
	}
	if v.Has("query") {
		asked = true
		if len(q.files)+len(q.services) == 0 {
			errs = append(errs, field.Invalid(field.NewPath("query"), v["query"], "query cannot be empty"))
		}
	}
	for name, to := range map[string]**time.Time{"sinceTime": &q.since, "untilTime": &q.until} {
		text := v.Get(name)
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			errs = append(errs, field.Invalid(field.NewPath(name), text, "invalid time format"))
		}
		*to, asked = &t, true
	}
	for name, to := range map[string]**int{"boot": &q.boot, "tailLines": &q.tail} {
		text := v.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			errs = append(errs, field.Invalid(field.NewPath(name), text, err.Error()))
		}
		*to, asked = &n, true
	}
	if !asked || len(errs) > 0 {
		return nil, errs
	}
	return &q, nil
}

// check what of a query makes no sense.
func (q *hostQuery) check() (errs field.ErrorList) {
	at := field.NewPath("query")
	for _, name := range q.services {
		switch {
		case len(name) > longestService:
			errs = append(errs, field.TooLong(at, name, longestService))
		case unsafeService.MatchString(name):
			errs = append(errs, field.Invalid(at, name, "input contains unsupported characters"))
		}
	}
	if len(q.services) > mostServices {
		errs = append(errs, field.TooMany(at, len(q.services), mostServices))
	}
	switch {
	case len(q.files)+len(q.services) == 0:
		errs = append(errs, field.Required(at, "cannot be empty with options"))
	case len(q.files) > 0 && len(q.services) > 0:
		errs = append(errs, field.Invalid(at, fmt.Sprintf("%v, %v", q.files, q.services), "cannot specify a file and service"))
	case len(q.files) > 1:
		errs = append(errs, field.Invalid(at, q.files, "cannot specify more than one file"))
	case len(q.files) == 1 && q.options():
		errs = append(errs, field.Invalid(at, q.files, "cannot specify file with options"))
	}
	if q.since != nil && q.until != nil && q.since.After(*q.until) {
		errs = append(errs, field.Invalid(field.NewPath("untilTime"), q.until.Format(time.RFC3339), "must be after `sinceTime`"))
	}
	if q.boot != nil && *q.boot > 0 {
		errs = append(errs, field.Invalid(field.NewPath("boot"), *q.boot, "must be less than 1"))
	}
	if q.tail != nil {
		for _, why := range validation.IsInRange(*q.tail, 0, mostTailLines) {
			errs = append(errs, field.Invalid(field.NewPath("tailLines"), *q.tail, why))
		}
	}
	if len(q.pattern) > longestPattern {
		return append(errs, field.TooLong(field.NewPath("pattern"), q.pattern, longestPattern))
	}
	if _, err := syntax.Parse(q.pattern, syntax.Perl); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("pattern"), q.pattern, err.Error()))
	}
	if strings.ContainsRune(q.pattern, 0) { // the end of an argument
		errs = append(errs, field.Invalid(field.NewPath("pattern"), q.pattern, "input contains unsupported characters"))
	}
	return errs
}

// options: something is asked for that only the journal can do.
func (q *hostQuery) options() bool {
	return q.since != nil || q.until != nil || q.tail != nil || q.boot != nil || q.pattern != ""
}

// write the logs of services: of those that the journal knows, then of those that write files. The answer has begun, so what goes wrong is said in it.
func (h *hostLogs) write(ctx context.Context, w io.Writer, q *hostQuery) {
	units, err := h.command(ctx, "--field", "_SYSTEMD_UNIT").Output()
	if ctx.Err() != nil {
		fmt.Fprintf(w, journalLate, hostLogsTime)
		return
	}
	known := strings.Fields(string(units))
	var inJournal, inFiles []string
	for _, name := range q.services {
		if err == nil && slices.Contains(known, name+".service") {
			inJournal = append(inJournal, name)
		} else {
			inFiles = append(inFiles, name)
		}
	}
	if len(inJournal) > 0 {
		cmd := h.command(ctx, q.arguments(inJournal)...)
		cmd.Stdout, cmd.Stderr = w, w
		var exit *exec.ExitError // it has said why
		if err := cmd.Run(); ctx.Err() != nil {
			fmt.Fprintf(w, journalLate, hostLogsTime)
			return
		} else if err != nil && !errors.As(err, &exit) {
			fmt.Fprintf(w, "\nerror: journal output not available: %v\n", err)
		}
	}
	if len(inFiles) > 0 && q.options() {
		fmt.Fprintf(w, "\noptions present and query resolved to log files for %v\ntry without specifying options\n", inFiles)
		return
	}
	for _, name := range inFiles {
		switch err := h.copy(ctx, w, name); {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(w, "\nlog not found for %s\n", name)
		case err != nil:
			fmt.Fprintf(w, "\nerror getting log for %s: %v\n", name, err)
		}
	}
}

// command reads the journal until ctx ends, and whatever it has begun ends with it.
func (h *hostLogs) command(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.journal, arguments...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// arguments of journalctl.
func (q *hostQuery) arguments(services []string) []string {
	out := []string{"--utc", "--no-pager", "--output=short-precise"}
	if q.since != nil {
		out = append(out, "--since="+q.since.UTC().Format(journalDate))
	}
	if q.until != nil {
		out = append(out, "--until="+q.until.UTC().Format(journalDate))
	}
	if q.tail != nil {
		out = append(out, "--pager-end", fmt.Sprintf("--lines=%d", *q.tail))
	}
	for _, name := range services {
		out = append(out, "--unit="+name)
	}
	if q.pattern != "" {
		out = append(out, "--grep="+q.pattern)
	}
	boot := 0
	if q.boot != nil {
		boot = *q.boot
	}
	return append(out, fmt.Sprintf("--boot=%d", boot))
}

// copy the file of a service: NAME, NAME.log or NAME/NAME.log. It is read as far as it went when that began: it may grow as fast as it is read.
func (h *hostLogs) copy(ctx context.Context, w io.Writer, name string) error {
	for _, file := range []string{name, name + ".log", name + "/" + name + ".log"} {
		f, err := h.files.Open(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			f.Close()
			continue
		}
		if err == nil {
			_, err = io.Copy(w, &untilDone{ctx, io.LimitReader(f, info.Size())})
		}
		f.Close()
		return err
	}
	return fs.ErrNotExist
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}
