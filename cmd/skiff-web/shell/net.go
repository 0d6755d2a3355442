package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// fetch is wget and curl: it gets a URL and prints the body, or keeps it in the file that -O or -o names. Options that only change how
// much either of the two says are accepted.
func fetch(s streams, args []string) int {
	f, err := parseFetch(args)
	if err != nil {
		s.fail("wget", err)
		return s.misuse("wget", "[-qsSfkLi] [-O FILE] [-T SECONDS] [-H HEADER] [-X METHOD] [-d BODY] URL…")
	}
	client := http.Client{Timeout: f.timeout}
	code := 0
	for _, url := range f.urls {
		if err := s.fetchOne(&client, f, url); err != nil {
			code = s.fail("wget", err)
		}
	}
	return code
}

type fetching struct {
	urls      []string
	file      string
	method    string
	body      string
	headers   []string
	timeout   time.Duration
	quiet     bool
	tolerant, // a refusal's body is printed, and is no failure
	showHead bool
}

func parseFetch(args []string) (f fetching, err error) {
	o, err := parse(args, "qsSfkLivnN46", "OoTmHXdtU", map[string]string{
		"max-time": "m", "timeout": "T", "connect-timeout": "T", "silent": "s", "show-error": "S", "fail": "f", "header": "H",
		"request": "X", "data": "d", "output": "o", "output-document": "O", "quiet": "q", "location": "L", "insecure": "k", "include": "i",
		"tries": "t", "post-data": "d", "no-check-certificate": "k", "no-verbose": "n", "user-agent": "U",
	})
	if err != nil {
		return f, err
	}
	f = fetching{
		urls: o.rest, method: o.text["X"], body: o.text["d"], timeout: 30 * time.Second, quiet: o.set["q"] || o.set["s"], showHead: o.set["i"],
	}
	f.tolerant = o.set["s"] && !o.set["f"]
	for _, name := range []string{"O", "o"} {
		if o.set[name] {
			f.file = o.text[name]
		}
	}
	if o.set["H"] {
		f.headers = append(f.headers, o.text["H"])
	}
	if o.set["U"] {
		f.headers = append(f.headers, "User-Agent: "+o.text["U"])
	}
	for _, name := range []string{"T", "m"} {
		if !o.set[name] {
			continue
		}
		n, err := strconv.ParseFloat(o.text[name], 64)
		if err != nil {
			return f, fmt.Errorf("%q is no number of seconds", o.text[name])
		}
		f.timeout = time.Duration(n * float64(time.Second))
	}
	if len(f.urls) == 0 {
		return f, errors.New("which URL?")
	}
	return f, nil
}

func (s streams) fetchOne(client *http.Client, f fetching, url string) error {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	method := f.method
	if method == "" {
		method = http.MethodGet
		if f.body != "" {
			method = http.MethodPost
		}
	}
	r, err := http.NewRequest(method, url, strings.NewReader(f.body))
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "skiff-web")
	if f.body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range f.headers {
		name, value, _ := strings.Cut(h, ":")
		if r.Header.Set(name, strings.TrimSpace(value)); strings.EqualFold(name, "host") {
			r.Host = strings.TrimSpace(value)
		}
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 && !f.tolerant {
		return fmt.Errorf("%s: server answered %s", url, resp.Status)
	}
	out := s.out
	if f.file != "" && f.file != "-" {
		name := f.file
		if st, err := os.Stat(name); err == nil && st.IsDir() {
			name = path.Join(name, path.Base(r.URL.Path))
		}
		file, err := os.Create(name)
		if err != nil {
			return err
		}
		defer file.Close()
		out = file
	}
	if f.showHead {
		fmt.Fprintf(out, "%s %s\n", resp.Proto, resp.Status)
		_ = resp.Header.Write(out) // the body's error tells the same
		fmt.Fprintln(out)
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// nslookup asks the resolvers of /etc/resolv.conf, or the server given as second argument, for a name's or an address's counterpart.
func nslookup(s streams, args []string) int {
	o, err := parse(args, "", "", nil)
	if err != nil || len(o.rest) == 0 || len(o.rest) > 2 {
		return s.misuse("nslookup", "NAME [SERVER]")
	}
	name, server := o.rest[0], ""
	resolver := &net.Resolver{PreferGo: true}
	if len(o.rest) == 2 {
		server = o.rest[1]
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server)
		}
	} else {
		server = firstResolver("/etc/resolv.conf")
	}
	fmt.Fprintf(s.out, "Server:  %s\n\n", server)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if _, err := netip.ParseAddr(name); err == nil {
		names, err := resolver.LookupAddr(ctx, name)
		if err != nil {
			return s.fail("nslookup", err)
		}
		for _, n := range names {
			fmt.Fprintf(s.out, "%s  name = %s\n", name, n)
		}
		return 0
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return s.fail("nslookup", err)
	}
	for _, a := range addrs {
		fmt.Fprintf(s.out, "Name:    %s\nAddress: %s\n", name, a.Unmap())
	}
	return 0
}

func firstResolver(file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "(none)"
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
			return net.JoinHostPort(fields[1], "53")
		}
	}
	return "127.0.0.1:53"
}
