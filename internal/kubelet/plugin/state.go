package plugin

import (
	"errors"
	"os"
)

// Keep replaces a file of what was agreed with plug-ins; it is there as a whole, or as it was before.
func Keep(path string, data []byte) error {
	temp, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
