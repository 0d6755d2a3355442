package shell

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func cat(s streams, args []string) int {
	o, err := parse(args, "u", "", nil)
	if err != nil {
		return s.fail("cat", err)
	}
	return s.each("cat", o.rest, func(_ string, r io.Reader) error {
		_, err := io.Copy(s.out, r)
		return err
	})
}

func cp(s streams, args []string) int {
	o, err := parse(args, "rRapf", "", nil)
	if err != nil || len(o.rest) < 2 {
		return s.misuse("cp", "[-r] SOURCE… DESTINATION")
	}
	target := o.rest[len(o.rest)-1]
	into := false
	if st, err := os.Stat(target); err == nil && st.IsDir() {
		into = true
	} else if len(o.rest) > 2 {
		return s.fail("cp", fmt.Errorf("%s is no folder", target))
	}
	code := 0
	for _, source := range o.rest[:len(o.rest)-1] {
		to := target
		if into {
			to = filepath.Join(target, filepath.Base(source))
		}
		if err := copyTree(source, to, o.set["r"] || o.set["R"] || o.set["a"]); err != nil {
			code = s.fail("cp", err)
		}
	}
	return code
}

func copyTree(from, to string, deep bool) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return copyFile(from, to, st)
	}
	if !deep {
		return fmt.Errorf("%s is a folder; -r copies it", from)
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), st.Mode().Perm())
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, filepath.Join(to, rel))
		}
		return copyFile(path, filepath.Join(to, rel), st)
	})
}

func copyFile(from, to string, st fs.FileInfo) error {
	if there, err := os.Stat(to); err == nil && os.SameFile(st, there) {
		return fmt.Errorf("%s and %s are the same file", from, to)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

func mkdir(s streams, args []string) int {
	o, err := parse(args, "p", "m", nil)
	mode := uint64(0o777)
	if err == nil && o.set["m"] {
		mode, err = strconv.ParseUint(o.text["m"], 8, 12)
	}
	if err != nil || len(o.rest) == 0 {
		return s.misuse("mkdir", "[-p] [-m MODE] FOLDER…")
	}
	code := 0
	for _, dir := range o.rest {
		create := os.Mkdir
		if o.set["p"] {
			create = os.MkdirAll
		}
		if err := create(dir, fs.FileMode(mode)); err != nil {
			code = s.fail("mkdir", err)
		}
	}
	return code
}

func rm(s streams, args []string) int {
	o, err := parse(args, "rRf", "", nil)
	if err != nil || len(o.rest) == 0 && !o.set["f"] {
		return s.misuse("rm", "[-rf] FILE…")
	}
	code := 0
	for _, path := range o.rest {
		st, err := os.Lstat(path)
		switch {
		case os.IsNotExist(err) && o.set["f"]:
			continue
		case err == nil && (o.set["r"] || o.set["R"]):
			err = os.RemoveAll(path)
		case err == nil && st.IsDir():
			err = fmt.Errorf("%s is a folder; -r removes it", path)
		case err == nil:
			err = os.Remove(path)
		}
		if err != nil {
			code = s.fail("rm", err)
		}
	}
	return code
}

func ls(s streams, args []string) int {
	o, err := parse(args, "alhA1dR", "", nil)
	if err != nil {
		return s.fail("ls", err)
	}
	paths := o.rest
	if len(paths) == 0 {
		paths = []string{"."}
	}
	code := 0
	for i, path := range paths {
		st, err := os.Lstat(path)
		if err == nil && st.Mode()&fs.ModeSymlink != 0 && !o.set["l"] {
			st, err = os.Stat(path)
		}
		if err != nil {
			code = s.fail("ls", err)
			continue
		}
		if !st.IsDir() || o.set["d"] {
			s.entry(path, path, st, o)
			continue
		}
		if len(paths) > 1 || o.set["R"] {
			if i > 0 {
				fmt.Fprintln(s.out)
			}
			fmt.Fprintf(s.out, "%s:\n", path)
		}
		if err := s.folder(path, o); err != nil {
			code = s.fail("ls", err)
		}
	}
	return code
}

func (s streams) folder(dir string, o options) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var below []string
	for _, e := range entries {
		if e.Name()[0] == '.' && !o.set["a"] && !o.set["A"] {
			continue
		}
		st, err := e.Info()
		if err != nil {
			continue // gone since
		}
		path := filepath.Join(dir, e.Name())
		s.entry(e.Name(), path, st, o)
		if e.IsDir() {
			below = append(below, path)
		}
	}
	if !o.set["R"] {
		return nil
	}
	for _, path := range below {
		fmt.Fprintf(s.out, "\n%s:\n", path)
		if err := s.folder(path, o); err != nil {
			return err
		}
	}
	return nil
}

func (s streams) entry(name, path string, st fs.FileInfo, o options) {
	if !o.set["l"] {
		fmt.Fprintln(s.out, name)
		return
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		if link, err := os.Readlink(path); err == nil {
			name += " -> " + link
		}
	}
	size := strconv.FormatInt(st.Size(), 10)
	if o.set["h"] {
		size = humanSize(st.Size())
	}
	var links uint64
	var uid, gid uint32
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		links, uid, gid = uint64(sys.Nlink), sys.Uid, sys.Gid
	}
	fmt.Fprintf(s.out, "%s %3d %5d %5d %9s %s %s\n", modeString(st.Mode()), links, uid, gid, size, st.ModTime().Format("Jan _2 15:04"), name)
}

// modeString is Go's, with the letters that ls uses for what is no plain file.
func modeString(m fs.FileMode) string {
	kind := "-"
	switch {
	case m.IsDir():
		kind = "d"
	case m&fs.ModeSymlink != 0:
		kind = "l"
	case m&fs.ModeCharDevice != 0:
		kind = "c"
	case m&fs.ModeDevice != 0:
		kind = "b"
	case m&fs.ModeNamedPipe != 0:
		kind = "p"
	case m&fs.ModeSocket != 0:
		kind = "s"
	}
	mode := []byte(kind + m.Perm().String()[1:])
	for _, special := range []struct {
		bit fs.FileMode
		at  int
		set byte
	}{{fs.ModeSetuid, 3, 's'}, {fs.ModeSetgid, 6, 's'}, {fs.ModeSticky, 9, 't'}} {
		if m&special.bit == 0 {
			continue
		}
		if mode[special.at] == '-' {
			special.set -= 'a' - 'A' // a capital says that it may not be executed
		}
		mode[special.at] = special.set
	}
	return string(mode)
}

func humanSize(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f%c", f, units[unit])
}

// follow copies what is appended to a file, until the process is told to stop.
func (s streams) follow(f *os.File) error {
	for {
		if _, err := io.Copy(s.out, f); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}
