package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// OpenTokenKey reads the key that signs service-account tokens from sa.key below dir, or makes it. It returns the private and the public key as PEM.
func OpenTokenKey(dir string) (private, public []byte, err error) {
	file := filepath.Join(dir, "sa.key")
	key, err := openKey(file, "")
	if err != nil {
		return nil, nil, err
	}
	if private, err = os.ReadFile(file); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// openKey reads a key, or makes it where there is none; but never where its certificate is already there, for then a key was lost.
func openKey(file, certFile string) (*ecdsa.PrivateKey, error) {
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		return readKey(file)
	}
	if certFile != "" {
		if _, err := os.Stat(certFile); err == nil {
			return nil, fmt.Errorf("%s is there, but its key %s is not; restore it from a backup", certFile, file)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(file, key)
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read a key: %w; restore it from a backup", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block; restore it from a backup", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w; restore it from a backup", file, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is a %T, want an ECDSA key", file, key)
	}
	return ec, nil
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// WriteFile writes a file whole or not at all: to a temporary name beside it, synced, then renamed.
func WriteFile(file string, data []byte, mode os.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(f.Chmod(mode), writeAll(f, data), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.Rename(f.Name(), file)
}

func writeAll(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}
