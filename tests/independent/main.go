// Command independent checks what fedhouse's ledger gives out, and shares no code with it.
//
// Notes and trees come from golang.org/x/mod/sumdb, which the Go checksum database uses; the proof file and
// the cosignatures are read here, after the specifications C2SP tlog-proof and tlog-cosignature.
//
//	independent receipt -proof FILE -entry FILE -log FILE [-witnesses FILE] [-cosigned NUMBER]
//	independent growth FILE
//
// Key files hold verifier keys, one a line. A growth file has the old size and root, the new size and root,
// and then the hashes of the consistency proof, each a line. The exit code is 0 if everything holds.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "receipt":
		return checkReceipt(args[1:])
	case len(args) == 2 && args[0] == "growth":
		return checkGrowth(args[1])
	}
	return errors.New("call it as: independent receipt|growth …")
}

// checkReceipt checks the log's signature, the cosignatures, the entry's inclusion and its outcome's.
func checkReceipt(args []string) error {
	flags := flag.NewFlagSet("receipt", flag.ContinueOnError)
	proofFile := flags.String("proof", "", "proof file")
	entryFile := flags.String("entry", "", "the entry's bytes")
	logFile := flags.String("log", "", "the log's verifier key")
	witnessFile := flags.String("witnesses", "", "the witnesses' verifier keys")
	cosigned := flags.Int("cosigned", 0, "how many witnesses must have cosigned")
	if err := flags.Parse(args); err != nil {
		return err
	}
	data, err := os.ReadFile(*proofFile)
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(*entryFile)
	if err != nil {
		return err
	}
	found, err := parseProof(string(data))
	if err != nil {
		return err
	}
	head, cosigners, err := openCheckpoint(found.checkpoint, *logFile, *witnessFile)
	if err != nil {
		return err
	}
	if cosigners < *cosigned {
		return fmt.Errorf("%d witnesses have cosigned, not %d", cosigners, *cosigned)
	}
	if err := tlog.CheckRecord(found.path, head.size, head.root, found.index, tlog.RecordHash(entry)); err != nil {
		return fmt.Errorf("entry: %w", err)
	}
	verdict, err := checkOutcome(found, head)
	if err != nil {
		return fmt.Errorf("outcome: %w", err)
	}
	fmt.Println(found.index, head.size, cosigners, verdict)
	return nil
}

// checkOutcome checks what the rules said to the entry, against the root in the checkpoint.
func checkOutcome(found proof, head checkpoint) (string, error) {
	var extra struct {
		Path    []string `json:"path"`
		Time    int64    `json:"time"`
		Verdict string   `json:"verdict"`
	}
	if err := json.Unmarshal(found.extra, &extra); err != nil {
		return "", err
	}
	// encoding/json forgives much; for these fields its own output is the canonical form.
	if again, err := json.Marshal(extra); err != nil || !bytes.Equal(again, found.extra) {
		return "", errors.New("it is not in its one spelling")
	}
	path, err := parseHashes(extra.Path)
	if err != nil {
		return "", err
	}
	leaf := tlog.RecordHash(fmt.Appendf(nil, "%d %s\n", extra.Time, extra.Verdict))
	return extra.Verdict, tlog.CheckRecord(path, head.size, head.outcomes, found.index, leaf)
}

// checkGrowth checks a consistency proof.
func checkGrowth(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) < 4 {
		return errors.New("a growth file has at least four lines")
	}
	oldSize, err := strconv.ParseInt(lines[0], 10, 64)
	if err != nil {
		return err
	}
	newSize, err := strconv.ParseInt(lines[2], 10, 64)
	if err != nil {
		return err
	}
	hashes, err := parseHashes(append([]string{lines[1], lines[3]}, lines[4:]...))
	if err != nil {
		return err
	}
	return tlog.CheckTree(hashes[2:], newSize, hashes[1], oldSize, hashes[0])
}

type proof struct {
	extra      []byte
	index      int64
	path       []tlog.Hash
	checkpoint string
}

func parseProof(text string) (proof, error) {
	var found proof
	top, checkpoint, ok := strings.Cut(text, "\n\n")
	lines := strings.Split(top, "\n")
	if !ok || lines[0] != "c2sp.org/tlog-proof@v1" {
		return found, errors.New("this is no proof file")
	}
	found.checkpoint = checkpoint
	lines = lines[1:]

	var err error
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		found.extra, err = base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[0], "extra "))
		if err != nil {
			return found, err
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return found, errors.New("a proof file needs an index")
	}
	found.index, err = strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if err != nil {
		return found, err
	}
	found.path, err = parseHashes(lines[1:])
	return found, err
}

func parseHashes(lines []string) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		if hash.String() != line {
			return nil, errors.New("a hash is not in its one spelling")
		}
		found = append(found, hash)
	}
	return found, nil
}

type checkpoint struct {
	size           int64
	root, outcomes tlog.Hash
}

// openCheckpoint gives the checkpoint, and how many witnesses have cosigned it, once the log has signed it.
func openCheckpoint(text, logFile, witnessFile string) (checkpoint, int, error) {
	var head checkpoint
	log, err := readKeys(logFile, note.NewVerifier)
	if err != nil {
		return head, 0, err
	}
	var witnesses []note.Verifier
	if witnessFile != "" {
		if witnesses, err = readKeys(witnessFile, newWitness); err != nil {
			return head, 0, err
		}
	}
	opened, err := note.Open([]byte(text), note.VerifierList(append(log, witnesses...)...))
	if err != nil {
		return head, 0, err
	}
	if len(log) != 1 || !signedBy(opened, log[0]) {
		return head, 0, errors.New("the log has not signed the checkpoint")
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 7 || lines[0] != log[0].Name() {
		return head, 0, errors.New("the checkpoint is of another log, or lacks lines")
	}
	if head.size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return head, 0, err
	}
	roots, err := parseHashes([]string{lines[2], strings.TrimPrefix(lines[4], "outcomes ")})
	if err != nil {
		return head, 0, err
	}
	head.root, head.outcomes = roots[0], roots[1]
	cosigners := 0
	for _, witness := range witnesses {
		if signedBy(opened, witness) {
			cosigners++
		}
	}
	return head, cosigners, nil
}

func signedBy(opened *note.Note, key note.Verifier) bool {
	for _, signature := range opened.Sigs {
		if signature.Name == key.Name() && signature.Hash == key.KeyHash() {
			return true
		}
	}
	return false
}

func readKeys(name string, parse func(string) (note.Verifier, error)) ([]note.Verifier, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var found []note.Verifier
	for _, line := range strings.Fields(string(data)) {
		key, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", line, err)
		}
		found = append(found, key)
	}
	return found, nil
}

// witness verifies cosignature/v1, which golang.org/x/mod does not know.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newWitness(text string) (note.Verifier, error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("this is no verifier key")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return nil, err
	}
	if len(raw) != 1+ed25519.PublicKeySize || raw[0] != 4 {
		return nil, errors.New("this is no witness's key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	if hex.EncodeToString(sum[:4]) != parts[1] {
		return nil, errors.New("its hash is another")
	}
	return witness{parts[0], binary.BigEndian.Uint32(sum[:4]), ed25519.PublicKey(raw[1:])}, nil
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }

func (w witness) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(signature)
	message := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", time, text)
	return ed25519.Verify(w.key, message, signature[8:])
}
