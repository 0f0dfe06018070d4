// Kafka Streams: the last 50 items of each user in an in-memory store with changelog.
// Arguments: bootstrap, topic, events, threads, state folder, caching (true or false), application id.

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

public final class LastItems {
    private static final int KEPT = 50;
    private static final JsonFactory JSON = new JsonFactory();
    private static final AtomicLong DONE = new AtomicLong();
    private static final CountDownLatch FINISHED = new CountDownLatch(1);
    private static long count;

    public static void main(String[] arguments) throws Exception {
        count = Long.parseLong(arguments[2]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[6]);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        // Internal topics insist on the producer's time otherwise; the run is timed by the broker's clock.
        settings.put(StreamsConfig.topicPrefix(TopicConfig.MESSAGE_TIMESTAMP_TYPE_CONFIG), "LogAppendTime");
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

        StoreBuilder<KeyValueStore<String, String>> store = Stores.keyValueStoreBuilder(
            Stores.inMemoryKeyValueStore("last"), Serdes.String(), Serdes.String());
        if (Boolean.parseBoolean(arguments[5])) {
            store = store.withCachingEnabled();
        }
        Topology topology = new Topology();
        topology.addSource("events", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), arguments[1]);
        topology.addProcessor("keep", Keep::new, "events");
        topology.addStateStore(store, "keep");
        try (KafkaStreams streams = new KafkaStreams(topology, settings)) {
            streams.start();
            FINISHED.await();
        }
        System.out.println("{\"last\": " + System.currentTimeMillis() + "}");
    }

    private static final class Keep implements Processor<String, byte[], Void, Void> {
        private KeyValueStore<String, String> last;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            last = context.getStateStore("last");
        }

        @Override
        public void process(Record<String, byte[]> event) {
            String user = null;
            String item = "";
            try (JsonParser parser = JSON.createParser(event.value())) {
                parser.nextToken();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String field = parser.currentName();
                    parser.nextToken();
                    if (field.equals("user_id")) {
                        user = parser.getText();
                    } else if (field.equals("item_id")) {
                        item = parser.getText();
                    }
                }
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
            last.put(user, appended(last.get(user), item));
            long done = DONE.incrementAndGet();
            if (done == 1) {
                System.out.println("{\"first\": " + System.currentTimeMillis() + "}");
            }
            if (done == count) {
                FINISHED.countDown();
            }
        }

        // Items separated by spaces, the newest last: one string is the cheapest value that has a serde of its own.
        private static String appended(String items, String item) {
            if (items == null) {
                return item;
            }
            int spaces = 0;
            for (int at = 0; at < items.length(); at++) {
                if (items.charAt(at) == ' ') {
                    spaces++;
                }
            }
            return (spaces >= KEPT - 1 ? items.substring(items.indexOf(' ') + 1) : items) + " " + item;
        }
    }
}
