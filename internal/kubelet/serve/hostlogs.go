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
	journalDate     = "2006-01-02 15:04:05"
	notServiceChars = `[^a-zA-Z\-_0-9@]`
)

var unsafeService = regexp.MustCompile(notServiceChars)

// hostLogs are the logs of the host's services, out of its journal or a file, and the files of a folder (KEP-2258).
type hostLogs struct {
	files   http.Dir
	journal string // the program that reads it
}

// hostQuery is what is asked of the logs of services, or which one file.
type hostQuery struct {
	services, files []string
	since, until    *time.Time
	tail, boot      *int
	pattern         string
}

// ServeHTTP answers a query; without one, or without any parameter that belongs to it, it shows the files.
func (h hostLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	if errs := h.check(q); len(errs) > 0 {
		http.Error(w, errs.ToAggregate().Error(), http.StatusNotAcceptable)
		return
	}
	if len(q.files) == 1 {
		r.URL.Path = strings.ReplaceAll(q.files[0], `\`, "/")
		http.FileServer(h.files).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	ctx, cancel := context.WithTimeout(r.Context(), hostLogsTime)
	defer cancel()
	h.write(ctx, w, q)
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

func (h hostLogs) check(q *hostQuery) (errs field.ErrorList) {
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
	case len(q.files) == 1:
		if f, err := h.files.Open(strings.ReplaceAll(q.files[0], `\`, "/")); err != nil {
			errs = append(errs, field.Invalid(at, q.files, err.Error()))
		} else {
			f.Close()
		}
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
	if _, err := syntax.Parse(q.pattern, syntax.Perl); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("pattern"), q.pattern, err.Error()))
	}
	return errs
}

// options: something is asked for that only the journal can do.
func (q *hostQuery) options() bool {
	return q.since != nil || q.until != nil || q.tail != nil || q.boot != nil || q.pattern != ""
}

// write the logs of services: of those that the journal knows, then of those that write files. The answer has begun, so what goes wrong is said in it.
func (h hostLogs) write(ctx context.Context, w io.Writer, q *hostQuery) {
	units, err := exec.CommandContext(ctx, h.journal, "--field", "_SYSTEMD_UNIT").Output()
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
		cmd := exec.CommandContext(ctx, h.journal, q.arguments(inJournal)...)
		cmd.Stdout, cmd.Stderr = w, w
		var exit *exec.ExitError // it has said why
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			fmt.Fprintf(w, "\nerror: journal output not available: %v\n", err)
		}
	}
	if len(inFiles) > 0 && q.options() {
		fmt.Fprintf(w, "\noptions present and query resolved to log files for %v\ntry without specifying options\n", inFiles)
		return
	}
	for _, name := range inFiles {
		switch err := h.copy(w, name); {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(w, "\nlog not found for %s\n", name)
		case err != nil:
			fmt.Fprintf(w, "\nerror getting log for %s: %v\n", name, err)
		}
	}
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

// copy the file of a service: NAME, NAME.log or NAME/NAME.log.
func (h hostLogs) copy(w io.Writer, name string) error {
	for _, file := range []string{name, name + ".log", name + "/" + name + ".log"} {
		f, err := h.files.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
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
			_, err = io.Copy(w, f)
		}
		f.Close()
		return err
	}
	return fs.ErrNotExist
}
