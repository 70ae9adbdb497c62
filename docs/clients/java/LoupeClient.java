// Talk to Loupe from Java (org.apache.kafka:kafka-clients, Java 17 or later): publish, trigger, label, listen.
//
//   eval "$(loupe env)"             # tells the address of Kafka as LOUPE_KAFKA_BOOTSTRAP
//   java -cp kafka-clients.jar:slf4j-api.jar:. LoupeClient publish cam-1 photo.jpg
//   java ... LoupeClient publish-bare cam-1 photo.jpg
//   java ... LoupeClient trigger cam-1 P-000123 L-42
//   java ... LoupeClient label caps FRAME_ID anomaly
//   java ... LoupeClient events my-program

import static java.nio.charset.StandardCharsets.UTF_8;

import java.net.URLEncoder;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class LoupeClient {
  private static final String BOOTSTRAP = System.getenv("LOUPE_KAFKA_BOOTSTRAP");
  // An image of up to 10 MiB and its headers; larger images go by reference (see README.md).
  private static final int RECORD_LIMIT_BYTES = 11 << 20;
  // Frame ids are made in this name space, so that you can name a frame without asking anybody.
  private static final UUID FRAME_NAMESPACE = UUID.fromString("6f6b3c0e-0f0a-5b0e-9d6f-6c6f75706531");

  public static void main(String[] args) throws Exception {
    switch (args[0]) {
      case "publish" -> publish(args[1], Path.of(args[2]));
      case "publish-bare" -> send("loupe.frames", args[1], Files.readAllBytes(Path.of(args[2])), List.of());
      case "trigger" -> send("loupe.triggers", args[1],
          "{\"part_id\": \"%s\", \"lot_id\": \"%s\"}".formatted(args[2], args[3]).getBytes(UTF_8), List.of());
      case "label" -> label(args[1], args[2], args[3]);
      case "events" -> events(args[1]);
      default -> throw new IllegalArgumentException(args[0]);
    }
  }

  /** Publish an image with CloudEvents headers. */
  static void publish(String camera, Path file) throws Exception {
    Instant taken = Files.getLastModifiedTime(file).toInstant();
    // The same for every try: sent again, it is still one frame and gets one verdict.
    String eventId = file.getFileName() + "/" + taken;
    List<Header> headers = new ArrayList<>();
    Map.of(
        "ce_specversion", "1.0",
        "ce_type", "io.loupe.frame.v1",
        "ce_id", eventId,
        "ce_source", encoded(camera),
        "ce_time", taken.toString(),
        "ce_subject", encoded(file.getFileName().toString()),
        "ce_partid", "P-000123",
        "content-type", "image/jpeg")
        .forEach((name, text) -> headers.add(new RecordHeader(name, text.getBytes(UTF_8))));
    send("loupe.frames", camera, Files.readAllBytes(file), headers);
    System.out.println("frame " + uuid5(FRAME_NAMESPACE, "event\u001f" + camera + "\u001f" + eventId));
  }

  /** Say what a frame shows: normal or anomaly. */
  static void label(String project, String frameId, String verdict) throws Exception {
    String said = """
        {"project": "%s", "frame_id": "%s", "verdict": "%s", "author": "line-3", "labelled_at": "%s"}"""
        .formatted(project, frameId, verdict, Instant.now());  // the later label of a frame wins
    send("loupe.labels", project, said.getBytes(UTF_8), List.of());
  }

  /** Send one record and return when every in-sync broker has it, or throw. */
  static void send(String topic, String key, byte[] value, List<Header> headers) throws Exception {
    Map<String, Object> settings = Map.of(
        "bootstrap.servers", BOOTSTRAP,
        "acks", "all",
        "enable.idempotence", true,  // a retry inside the client makes no second record
        "max.request.size", RECORD_LIMIT_BYTES);
    var bytes = new ByteArraySerializer();
    try (var producer = new KafkaProducer<byte[], byte[]>(settings, bytes, bytes)) {
      var record = new ProducerRecord<>(topic, null, null, key.getBytes(UTF_8), value, headers);
      producer.send(record).get(30, TimeUnit.SECONDS);
    }
  }

  /** Print events as they come, from where this group was when it ended. */
  static void events(String group) {
    Map<String, Object> settings = Map.of(
        "bootstrap.servers", BOOTSTRAP,
        "group.id", group,
        "auto.offset.reset", "earliest",
        "enable.auto.commit", false);
    var bytes = new ByteArrayDeserializer();
    try (var consumer = new KafkaConsumer<byte[], byte[]>(settings, bytes, bytes)) {
      consumer.subscribe(List.of("loupe.events"));
      while (true) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
          // The value is JSON; give it to your JSON library. An event may come twice, with an equal "id".
          System.out.println(new String(record.value(), UTF_8));
        }
        consumer.commitSync();  // only now: what was not handled comes again
      }
    }
  }

  private static String encoded(String text) {
    return URLEncoder.encode(text, UTF_8).replace("+", "%20");
  }

  /** Return the UUID of a name in a name space (version 5, RFC 9562). */
  static UUID uuid5(UUID space, String name) throws Exception {
    MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
    sha1.update(ByteBuffer.allocate(16)
        .putLong(space.getMostSignificantBits()).putLong(space.getLeastSignificantBits()).array());
    ByteBuffer digest = ByteBuffer.wrap(sha1.digest(name.getBytes(UTF_8)));
    long high = digest.getLong() & ~0xF000L | 0x5000L;
    long low = digest.getLong() & ~(3L << 62) | 2L << 62;
    return new UUID(high, low);
  }
}
