package dlassets.engines;

import io.delta.storage.S3SingleDriverLogStore;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Iterator;
import java.util.UUID;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.AWSServiceIOException;
import org.apache.hadoop.fs.s3a.RemoteFileChangedException;

/**
 * Delta's log on S3, in which a commit is created on the condition that there is none of its version.
 *
 * <p>The one it extends looks whether there is one, and then puts its own: what another driver, or delta-rs, put
 * meanwhile is gone without a word. Here the store itself refuses the second of two.
 *
 * <p>Each object says whose write it is, since a PUT is repeated where its answer got lost, and the store refuses the
 * repetition of one that it took: without the id, Delta would take its own commit for another's, and commit again.
 */
public class S3LogStore extends S3SingleDriverLogStore {

    private static final String ID = "dlassets-write-id";

    public S3LogStore(Configuration hadoopConf) {
        super(hadoopConf);
    }

    @Override
    public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration hadoopConf)
            throws IOException {
        if (overwrite) {
            super.write(path, actions, true, hadoopConf);
            return;
        }
        FileSystem files = path.getFileSystem(hadoopConf);
        String id = UUID.randomUUID().toString();
        try {
            create(files, path, id, actions);
        } catch (IOException said) {
            // Whatever was said, what is there decides: the answer that would have told may be the one that got lost.
            String there = idThere(files, path, said);
            if (id.equals(there)) {
                return;
            }
            if (there != null || isConflict(said)) {
                FileAlreadyExistsException exists = new FileAlreadyExistsException(path.toString());
                exists.initCause(said);
                throw exists; // by which Delta looks what the other one did, and tries the next version
            }
            throw said;
        }
    }

    private static void create(FileSystem files, Path path, String id, Iterator<String> actions) throws IOException {
        FSDataOutputStream stream = (FSDataOutputStream) files.createFile(path)
                .overwrite(false)
                .recursive()
                .must("fs.option.create.conditional.overwrite", true)
                .must("fs.s3a.create.header." + ID, id)
                .build();
        boolean whole = false;
        try {
            while (actions.hasNext()) {
                stream.write((actions.next() + "\n").getBytes(StandardCharsets.UTF_8));
            }
            whole = true;
        } finally {
            if (!whole) {
                stream.abort(); // to close it would put what there is so far
            }
        }
        stream.close();
    }

    /** Return the id of the write whose object is there, empty where it has none; null where there is no object. */
    private static String idThere(FileSystem files, Path path, IOException said) throws IOException {
        try {
            byte[] id = files.getXAttr(path, "header." + ID);
            return id == null ? "" : new String(id, StandardCharsets.UTF_8);
        } catch (FileNotFoundException none) {
            return null;
        } catch (IOException unknown) {
            said.addSuppressed(unknown);
            throw said;
        }
    }

    /** Whether the store refused it for another write, which may be going on still: 412 or 409. */
    private static boolean isConflict(IOException said) {
        return said instanceof RemoteFileChangedException
                || (said instanceof AWSServiceIOException && ((AWSServiceIOException) said).statusCode() == 409);
    }
}
