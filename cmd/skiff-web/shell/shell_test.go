package shell

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test program what a link to it is called, as in the image.
func TestMain(m *testing.M) {
	if Has(filepath.Base(os.Args[0])) {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// program runs a command as a process, in an empty folder and without any other commands.
func program(t *testing.T, stdin string, args ...string) (out, errOut string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Args, cmd.Dir, cmd.Stdin = args, t.TempDir(), strings.NewReader(stdin)
	cmd.Env = []string{"PATH=/nowhere", "GREETING=hello", "HOME=/"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the code tells
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func TestScripts(t *testing.T) {
	cases := []struct {
		name, script, in, out string
		code                  int
	}{
		{"output", "echo hi", "", "hi\n", 0},
		{"exit code", "exit 7", "", "", 7},
		{"false", "false", "", "", 1},
		{"input", "cat; exit 7", "a\nb\n", "a\nb\n", 7},
		{"variables", `x=1; y=$((x+41)); echo "$y $GREETING ${z:-none}"`, "", "42 hello none\n", 0},
		{"loop", "for i in 1 2 3; do echo $i; done | tail -n 1", "", "3\n", 0},
		{"here document", "cat <<E\none\ntwo\nE", "", "one\ntwo\n", 0},
		{"function", "f() { echo \"f $1\"; return 4; }; f x", "", "f x\n", 4},
		{"and or", "false || echo yes && echo also", "", "yes\nalso\n", 0},
		{"errexit", "set -e; false; echo not", "", "", 1},
		{"unknown command", "nothing-such", "", "", 127},
		{"files", "mkdir -p a/b; echo x >a/b/f; cp -r a c; cat c/b/f; rm -r a; ls; ls c/b", "", "x\nc\nf\n", 0},
		{"ls", "echo x >f; mkdir d; ls -l | grep -c ' f$'; ls -a .; ls nothing 2>&1", "", "1\nd\nf\nls: nothing: no such file or directory\n", 1},
		{"head and tail", "head -n 3 | tail -2", "1\n2\n3\n4\n", "2\n3\n", 0},
		{"old count", "head -2", "1\n2\n3\n", "1\n2\n", 0},
		{"tail from", "tail -n +3", "1\n2\n3\n4\n", "3\n4\n", 0},
		{"head bytes", "head -c 3", "12345", "123", 0},
		{"wc", "wc; echo 'a b' | wc -w", "a b\nc\n", "2 3 6\n2\n", 0},
		{"sort", "sort -n | uniq -c", "10\n2\n10\n", "      1 2\n      2 10\n", 0},
		{"sort by field", "sort -k 2 -r", "a 1\nb 3\nc 2\n", "b 3\nc 2\na 1\n", 0},
		{"sort unique", "sort -u", "b\na\nb\n", "a\nb\n", 0},
		{"grep", `grep -n 'b.*\(x\|y\)+'`, "bax+\nbc\n", "1:bax+\n", 0},
		{"grep extended", "grep -Eo '[0-9]+'", "a12b3\n", "12\n3\n", 0},
		{"grep -v -c", "grep -vc a", "a\nb\nc\n", "2\n", 0},
		{"grep none", "grep -q z", "a\n", "", 1},
		{"env", "env | grep GREETING; env A=1 env | grep ^A=; export B=2; env | grep ^B=", "", "GREETING=hello\nA=1\nB=2\n", 0},
		{"date", "date -u +%Y | grep -c '^20..$'; date -u +%%", "", "1\n%\n", 0},
		{"sleep", "sleep 0.01 && echo done", "", "done\n", 0},
		{"bad sleep", "sleep soon 2>/dev/null", "", "", 2},
		{"kill itself", "kill -s TERM $$; sleep 5; echo not", "", "", -1},
		{"kill nobody", "kill 99999999 2>/dev/null", "", "", 1},
		{"job with input", "cat <<E & wait\nfor the job\nE", "", "for the job\n", 0},
		{"ps", "ps | head -n 1 | grep -c COMMAND; ps | grep -c '[p]s$'", "", "1\n1\n", 0},
		{"job and wait", "f() { echo in job; }; f & wait; echo after", "", "in job\nafter\n", 0},
		{"job's variables", "x=5; (echo $x) & wait", "", "5\n", 0},
		{"job with file", "echo to file >out & wait; cat out", "", "to file\n", 0},
		{"tar", "mkdir -p a/b d; echo x >a/b/f; tar cf - a | tar -xmf - -C d; cat d/a/b/f; tar -cf t a/b/f; tar tf t", "", "x\na/b/f\n", 0},
		{"tar of nothing", "tar cf - nothing >t 2>/dev/null", "", "", 1},
		{"jobs in a loop", "for i in 1 2; do echo $i >f$i & done; wait; cat f1 f2", "", "1\n2\n", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, errOut, code := program(t, c.in, "sh", "-c", c.script)
			if out != c.out || code != c.code {
				t.Errorf("printed %q, code %d; want %q, %d (errors: %s)", out, code, c.out, c.code, errOut)
			}
		})
	}
}

func TestInvocations(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo \"$1-$#\"\nexit 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, in  string
		args      []string
		out, errs string
		code      int
	}{
		{"file", "", []string{"sh", script, "a", "b"}, "a-2\n", "", 3},
		{"no such file", "", []string{"sh", "/nowhere/script"}, "", "no such file", 127},
		{"parameters", "", []string{"sh", "-c", "echo $1", "name", "x"}, "x\n", "", 0},
		{"settings", "", []string{"sh", "-ec", "false; echo not"}, "", "", 1},
		{"input", "echo a\nif true\nthen\n  echo b\nfi\nexit 4\necho c\n", []string{"sh"}, "a\nb\n", "", 4},
		{"input is the command's too", "read x\nfirst\ncat\nrest\n", []string{"sh"}, "rest\n", "", 0},
		{"syntax", "", []string{"sh", "-c", "if"}, "", "sh:1:1", 2},
		{"bad option", "", []string{"sh", "-Q"}, "", "unknown option -Q", 2},
		{"prompt", "echo $((6*7))-answer\nif true\nthen echo yes\nfi\nexit 5\n", []string{"sh", "-i"}, "42-answer", "", 5},
		{"prompt after an error", "fi\nnothing-such\necho still\n", []string{"sh", "-i"}, "still", "", 0},
		{"other name", "", []string{"/bin/hostname"}, "", "", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, errOut, code := program(t, c.in, c.args...)
			interactive := len(c.args) > 1 && c.args[1] == "-i"
			if c.out != "" && out != c.out && !(interactive && strings.Contains(out, c.out)) || !strings.Contains(errOut, c.errs) || code != c.code {
				t.Errorf("printed %q and %q, code %d; want %q, %q, %d", out, errOut, code, c.out, c.errs, c.code)
			}
		})
	}
}

// TestJobOutlivesTheShell: what `sh -c 'job &'` leaves behind goes on, and does not keep the shell.
func TestJobOutlivesTheShell(t *testing.T) {
	file := filepath.Join(t.TempDir(), "late")
	began := time.Now()
	if _, errOut, code := program(t, "", "sh", "-c", "(sleep 4; echo late >"+file+") >/dev/null 2>&1 &"); code != 0 {
		t.Fatalf("code %d: %s", code, errOut)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the shell waited %s for its job", took)
	}
	for time.Since(began) < 40*time.Second {
		if raw, err := os.ReadFile(file); err == nil && string(raw) == "late\n" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the job ended with the shell")
}

func TestFetch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			http.Error(w, "nothing here", http.StatusNotFound)
		case "/slow":
			time.Sleep(3 * time.Second)
		default:
			_, _ = w.Write([]byte(r.Method + " " + r.Header.Get("X-A") + r.Host[:3]))
		}
	}))
	defer server.Close()
	cases := []struct {
		args string
		out  string
		code int
	}{
		{"wget -q -O - URL/", "GET 127", 0},
		{"wget -qO- URL/", "GET 127", 0},
		{"curl -sS --max-time 5 URL/", "GET 127", 0},
		{"curl -s -H X-A:b -X PUT URL", "PUT b127", 0},
		{"curl -s URL/missing", "nothing here\n", 0},
		{"curl -sf URL/missing", "", 1},
		{"wget -q -O - URL/missing", "", 1},
		{"wget -q -T 0.2 -O - URL/slow", "", 1},
		{"wget -q -O - http://127.0.0.1:1/", "", 1},
		{"wget", "", 2},
	}
	for _, c := range cases {
		out, errOut, code := program(t, "", strings.Fields(strings.ReplaceAll(c.args, "URL", server.URL))...)
		if out != c.out || code != c.code {
			t.Errorf("%s: printed %q, code %d; want %q, %d (%s)", c.args, out, code, c.out, c.code, errOut)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-an5", "x", "-b", "--long=v", "--", "-z"}, "ab", "nl", map[string]string{"long": "l"})
	if err != nil || !o.set["a"] || !o.set["b"] || o.text["n"] != "5" || o.text["l"] != "v" || strings.Join(o.rest, " ") != "x -z" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-q"}, {"-n"}, {"--other"}, {"--long"}} {
		if _, err := parse(bad, "ab", "nl", map[string]string{"long": "l"}); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestSignals(t *testing.T) {
	for name, want := range map[string]syscall.Signal{"9": 9, "KILL": 9, "SIGTERM": 15, "hup": 1} {
		if got, ok := signalOf(name); !ok || got != want {
			t.Errorf("%s is %v, %v", name, got, ok)
		}
	}
	if _, ok := signalOf("NONE"); ok {
		t.Error("NONE is a signal")
	}
}
